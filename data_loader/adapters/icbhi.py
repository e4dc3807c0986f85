"""ICBHI 2017 (Rocha et al. 2019): 6,898 breathing cycles of 126 patients with crackles, wheezes, both or neither."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import register_adapter
from utils.errors import UserError

CLASSES = ("normal", "crackle", "wheeze", "both")
_LABELS = {("0", "0"): "normal", ("1", "0"): "crackle", ("0", "1"): "wheeze", ("1", "1"): "both"}
_NAME = ("patient", "recording", "location", "mode", "device")
_SPLIT_FILE = "ICBHI_challenge_train_test.txt"


@register_adapter("icbhi", classes=CLASSES, scoring="icbhi", groups="patients")
def icbhi(data_dir: Path) -> pd.DataFrame:
    """A row a breathing cycle, in the official split of recordings (60/40), with the fields of the file's name.

    The recordings (``101_1b1_Al_sc_Meditron.wav``) and their cycles (the same name with ``.txt``: start, end, crackle,
    wheeze) lie in the folder itself or in ``ICBHI_final_database``; the split file in either. Two patients are in
    both parts of the official split.
    """
    folder = data_dir / "ICBHI_final_database"
    folder = folder if folder.is_dir() else data_dir
    rows = []
    for stem, split in _official_split(data_dir, folder).items():
        fields = dict(zip(_NAME, stem.split("_"), strict=False))
        if len(fields) < len(_NAME):
            raise UserError(folder / f"{stem}.wav", "is not named patient_recording_location_mode_device")
        common = {"path": (folder / f"{stem}.wav").relative_to(data_dir).as_posix(), "split": split}
        common |= {"group": fields["patient"], **{name: fields[name] for name in _NAME[1:]}}
        rows += [common | cycle for cycle in _cycles(folder / f"{stem}.txt")]
    return pd.DataFrame(rows)


def _official_split(data_dir: Path, folder: Path) -> dict[str, str]:
    """The split of each recording by its name."""
    path = next((p for p in (data_dir / _SPLIT_FILE, folder / _SPLIT_FILE) if p.is_file()), None)
    if path is None:
        raise UserError(data_dir / _SPLIT_FILE, "there is no such file", "fetch it from the challenge's site")
    splits = {}
    for number, words in _lines(path):
        if len(words) != 2 or words[1] not in ("train", "test"):
            raise UserError(path, f"line {number} is not a recording with train or test")
        splits[words[0]] = words[1]
    if not splits:
        raise UserError(path, "is empty", "fetch it again")
    return splits


def _cycles(path: Path) -> list[dict[str, str]]:
    """The cycles of a recording: label, start and end, in seconds."""
    cycles = []
    for number, words in _lines(path):
        if len(words) != 4 or tuple(words[2:]) not in _LABELS:
            raise UserError(path, f"line {number} is not start, end, crackle (0 or 1) and wheeze (0 or 1)")
        cycles.append({"label": _LABELS[words[2], words[3]], "start": words[0], "end": words[1]})
    return cycles


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The words of each line that has any, with its number."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read: {error}", "fetch the data set again") from error
    lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, words) for number, words in lines if words]
