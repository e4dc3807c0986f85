"""The synthetic data set: a small, seeded stand-in for SPRSound in its official layout."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data_loader.synthesis import RATE
from data_loader.virtual_patients import LOCATIONS, PLANS, Patient, draw_patient, draw_recording, record_label
from logger.progress import progress_bar
from utils.errors import UserError

RELEASE = "BioCAS2022"
MARKER = "SYNTHETIC.txt"
_VERSION = 1
_PARTS = {
    "train": ("train2022_wav", "train2022_json"),
    "inter": ("test2022_wav", "test2022_json/inter_test_json"),
    "intra": ("test2022_wav", "test2022_json/intra_test_json"),
}


@dataclass(frozen=True)
class _Job:
    """One recording to make: the patient, its index in the patient's plan, its part of the set, its number."""

    patient: Patient
    index: int
    part: str
    rec_id: int
    patient_number: int


def write_synthetic(
    dest: Path, seed: int = 0, patients: int = 24, recordings_per_patient: int = 6, progress: bool = False
) -> int:
    """Write the synthetic set below `dest`, in the layout, names and formats of SPRSound's release of 2022.

    The training set has `patients` patients with `recordings_per_patient` recordings each. The test set has
    a quarter as many patients (two at the least) whom the training set lacks (inter), with one recording fewer each,
    and one more recording of each training patient (intra). From 6 patients and 3 recordings on, all record labels
    are in the training set. The same arguments give the same bytes on one machine and NumPy version.

    ``SYNTHETIC.txt`` in `dest` says what the set is. A set that is there already is kept if it was made with the same
    arguments, and replaced if with others; anything else is left alone and an error. The set is written aside and
    renamed: it is there whole or not at all.

    Args:
        dest: the data folder; made if it is not there.
        seed: 0 or more.
        progress: show a progress bar.

    Returns:
        The number of recordings in the set.

    Raises:
        UserError: `dest` holds other recordings or cannot be written to.
        ValueError: `seed` is negative, or one of the numbers is not positive.
    """
    if seed < 0 or patients < 1 or recordings_per_patient < 1:
        raise ValueError("write_synthetic needs seed >= 0, patients >= 1 and recordings_per_patient >= 1")
    parameters = {
        "version": _VERSION,
        "seed": seed,
        "patients": patients,
        "recordings_per_patient": recordings_per_patient,
    }
    jobs = list(_jobs(seed, patients, recordings_per_patient))
    aside = dest / ".synthetic-part"
    try:
        if _existing(dest) == parameters:
            return len(jobs)
        shutil.rmtree(aside, ignore_errors=True)
        for job in progress_bar(jobs, desc="synthetic set", unit="rec", disable=not progress):
            _write_recording(aside / RELEASE, seed, job)
        # No moment at which a set lies there without its marker, or with the marker of another one: an interruption
        # leaves no set, and the next call makes it.
        if (dest / RELEASE).exists():
            (dest / RELEASE).rename(aside / "replaced")
        _write_marker(dest / MARKER, parameters, _fingerprint(aside / RELEASE))
        (aside / RELEASE).rename(dest / RELEASE)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(dest, f"the synthetic set cannot be written: {error}", "choose another --data-dir") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(jobs)


def _jobs(seed: int, patients: int, recordings: int) -> Iterator[_Job]:
    inter = max(2, patients // 4)
    counts = [("train", recordings)] * patients + [("inter", max(1, recordings - 1))] * inter
    rec_id = 0
    for number, (part, count) in enumerate(counts):
        # Training and inter patients go through the plans from the first on; each turn starts further into them.
        turn = number if part == "train" else number - patients
        patient = draw_patient(np.random.default_rng([seed, number]), number, turn)
        first = turn // len(PLANS) * 3
        for index in range(first, first + count + (part == "train")):
            rec_id += 1
            yield _Job(patient, index, "intra" if index == first + count else part, rec_id, number)


def _write_recording(release: Path, seed: int, job: _Job) -> None:
    patient = job.patient
    types = patient.plan[job.index % len(patient.plan)]
    location = LOCATIONS[job.rec_id % len(LOCATIONS)]
    # A generator for each recording: it does not depend on what was made before it.
    rng = np.random.default_rng([seed, job.patient_number, job.index + 1])
    samples, events = draw_recording(rng, patient, types, location)
    annotation = {
        "record_annotation": record_label({kind for _, _, kind in events}),
        "event_annotation": [{"start": str(start), "end": str(end), "type": kind} for start, end, kind in events],
    }
    stem = f"{patient.patient_id}_{patient.age:.1f}_{patient.gender}_{location}_{job.rec_id}"
    wav_dir, json_dir = (release / folder for folder in _PARTS[job.part])
    wav_dir.mkdir(parents=True, exist_ok=True)
    json_dir.mkdir(parents=True, exist_ok=True)
    soundfile.write(wav_dir / f"{stem}.wav", samples, RATE, subtype="PCM_16")
    (json_dir / f"{stem}.json").write_text(json.dumps(annotation), encoding="utf-8")


def _existing(dest: Path) -> dict | None:
    """The parameters of the synthetic set in `dest`, None where there are no recordings.

    Raises:
        UserError: there are recordings that are not, or not only, a synthetic set as it was written.
    """
    release, marker = dest / RELEASE, dest / MARKER
    hint = "remove it or choose another --data-dir"
    folders = [folder for pattern in ("*wav", "*flac", "*/*wav", "*/*flac") for folder in dest.glob(pattern)]
    others = sorted(folder for folder in folders if folder.is_dir() and release not in folder.parents)
    if others:
        raise UserError(others[0], "holds recordings that the synthetic set must not be mixed with", hint)
    if not release.exists() or not any(release.iterdir()):
        return None
    if not marker.is_file():
        raise UserError(release, "holds data that may be real, so no synthetic set is written there", hint)
    try:
        content = json.loads(marker.read_text(encoding="utf-8").splitlines()[-1])
        parameters, fingerprint = content["parameters"], content["fingerprint"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            marker, "is not as it was written", f"remove it and {RELEASE}, or take another folder"
        ) from error
    if fingerprint != _fingerprint(release):
        raise UserError(release, f"is not the synthetic set that {MARKER} describes", hint)
    return parameters


def _fingerprint(release: Path) -> str:
    """SHA-256 of the names and sizes of all files."""
    files = sorted(path for path in release.rglob("*") if path.is_file())
    listing = "\n".join(f"{path.relative_to(release).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _write_marker(path: Path, parameters: dict, fingerprint: str) -> None:
    text = (
        f"{RELEASE} in this folder is SYNTHETIC: made by data_loader/synthetic.py, no patient was recorded.\n"
        "It is for trying the programs. No figure measured on it says anything about lungs.\n"
        + json.dumps({"parameters": parameters, "fingerprint": fingerprint})
        + "\n"
    )
    aside = path.with_suffix(".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
