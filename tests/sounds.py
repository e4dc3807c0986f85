"""Tiny data sets of labelled sounds, each written in exactly the format of the published one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

URBAN_TEN = ("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot")
URBAN_TEN += ("jackhammer", "siren", "street_music")
URBAN_CLASSES = ("air_conditioner", "dog_bark", "siren")
ICBHI_CYCLES = {
    "101_1b1_Al_sc_Meditron": [(0.036, 0.579, 0, 0), (0.579, 1.45, 0, 1)],
    "101_1b1_Pr_sc_Meditron": [(0.0, 0.7, 1, 0), (0.7, 1.2, 1, 1)],
    "102_1b1_Ar_sc_Meditron": [(0.1, 0.9, 0, 0), (0.9, 1.4, 1, 0)],
    "103_2b2_Ar_mc_LittC2SE": [(0.0, 0.5, 0, 1), (0.5, 1.5, 0, 0)],
    "104_1b1_Lr_mc_AKGC417L": [(0.2, 0.8, 1, 1), (0.8, 1.3, 0, 0)],
    "156_2b3_Al_mc_AKGC417L": [(0.2, 0.8, 1, 0), (0.8, 1.3, 0, 0)],
    "156_5b3_Al_mc_AKGC417L": [(0.1, 0.8, 0, 1), (0.8, 1.5, 1, 1)],
    "130_1p2_Pl_mc_AKGC417L": [(0.0, 0.8, 1, 0), (0.8, 1.3, 0, 0), (1.3, 1.5, 0, 1)],
}
ICBHI_TEST = ("156_5b3_Al_mc_AKGC417L", "130_1p2_Pl_mc_AKGC417L")


def tone(path: Path, seconds: float = 0.5, rate: int = 8000, channels: int = 1, hertz: float = 440.0, **how) -> Path:
    """Write a tone, in its second channel of half the strength; `how` is of soundfile (subtype, format)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([wave / (1 + c) for c in range(channels)], axis=1), rate, **how)
    return path


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_urbansound8k(folder: Path, folds: int = 10, classes: Sequence[str] = URBAN_CLASSES) -> Path:
    """One slice a class and fold; start and end are of the recording it was cut from."""
    how = [
        {"rate": 44100, "channels": 2, "subtype": "PCM_16"},
        {"rate": 48000, "channels": 2, "subtype": "PCM_24"},
        {"rate": 11025, "channels": 1, "subtype": "PCM_U8"},
        {"rate": 96000, "channels": 1, "subtype": "FLOAT"},
    ]
    rows = []
    for fold in range(1, folds + 1):
        for number, name in enumerate(classes):
            recording = 100000 + 100 * fold + number
            slice_name = f"{recording}-{number}-0-{fold}.wav"
            seconds = 0.2 + 0.45 * ((fold + number) % 3)
            tone(folder / "audio" / f"fold{fold}" / slice_name, seconds, hertz=300 * 1.5**number, **how[fold % 4])
            rows.append([slice_name, recording, 57.5, 57.5 + seconds, 1, fold, number, name])
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    table(folder / "metadata" / "UrbanSound8K.csv", header, rows)
    return folder


def write_esc50(folder: Path) -> Path:
    rows = []
    for fold in range(1, 6):
        for target, (name, esc10) in enumerate([("dog", True), ("rooster", True), ("pig", False)]):
            for take in "AB":
                file = f"{fold}-1000{target}-{take}-{target}.wav"
                tone(folder / "audio" / file, 0.3, 44100)
                rows.append([file, fold, target, name, esc10, f"1000{target}{fold}", take])
    table(folder / "meta" / "esc50.csv", ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows)
    return folder


def write_fma(folder: Path) -> Path:
    """tracks.csv begins with three header rows; an empty cell is no value."""
    header = [
        ["", "album", "artist", "artist", "set", "set", "track", "track"],
        ["", "comments", "id", "name", "split", "subset", "genre_top", "title"],
        ["track_id", "", "", "", "", "", "", ""],
    ]
    rows = [
        [2, 0, 1, "AWOL", "training", "small", "Hip-Hop", "Food"],
        [5, 0, 1, "AWOL", "training", "small", "Hip-Hop", "This World"],
        [10, 0, 6, "Kurt", "training", "small", "Pop", 'a "quoted",\ntitle'],
        [140, 1, 54, "Alec", "validation", "small", "Pop", "Queen"],
        [141, 1, 55, "Alex", "validation", "small", "Hip-Hop", "Ohio"],
        [182, 1, 70, "Amor", "test", "small", "Rock", "Song"],
        [190, 1, 71, "Amor", "training", "medium", "Rock", "Wide"],
        [133297, 1, 80, "X", "training", "small", "Pop", "Nothing"],
        [200, 1, 90, "Y", "training", "large", "", "No genre"],
    ]
    table(folder / "fma_metadata" / "tracks.csv", header[0], [*header[1:], *rows])
    for number in (2, 5, 10, 140, 141, 182):
        tone(folder / "fma_small" / f"{number:06}"[:3] / f"{number:06}.mp3", 0.6, 44100, 2, format="MP3")
    return folder


def write_icbhi(folder: Path, below: str = "ICBHI_final_database") -> Path:
    """Recordings of patient 156 are on both sides of the official split, as in the published one."""
    rates = {"Meditron": 4000, "LittC2SE": 4000, "AKGC417L": 44100}
    for number, (name, cycles) in enumerate(ICBHI_CYCLES.items()):
        rate = rates[name.rsplit("_", 1)[1]]
        tone(folder / below / f"{name}.wav", 1.5, rate, hertz=200 + 50 * number, subtype="PCM_24")
        lines = [f"{start}\t{end}\t{crackle}\t{wheeze}\n" for start, end, crackle, wheeze in cycles]
        (folder / below / f"{name}.txt").write_text("".join(lines))
    (folder / below / "filename_format.txt").write_text("The elements contained in the file names\n")
    split = [f"{name}\t{'test' if name in ICBHI_TEST else 'train'}\n" for name in ICBHI_CYCLES]
    (folder / "ICBHI_challenge_train_test.txt").write_text("".join(split))
    return folder
