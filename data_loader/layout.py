"""Finding the recordings and annotations of a data folder, whichever of SPRSound's layouts it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac")
_FOLDER = re.compile(r"(?:(?P<part>train|test)(?P<year>\d{4})?_)?(?P<kind>wav|flac|json)")
_JSON_SUBFOLDERS = {"inter_test_json": "inter", "intra_test_json": "intra"}


@dataclass(frozen=True)
class SourcePair:
    """A recording and its annotation; one of the two is None where it is missing.

    Attributes:
        split: "train"; "inter" or "intra" (the two parts of the 2022 test set); "test" where a test set has no
            parts, with its year behind from 2023 on ("test2023").
    """

    stem: str
    audio: Path | None
    annotation: Path | None
    split: str


def find_pairs(data_dir: Path) -> list[SourcePair]:
    """All recordings and annotations below `data_dir`, sorted by split and name.

    The official layout (``BioCAS2022/train2022_wav`` ..., also below ``releases/``), the early official one
    (``train_wav`` ...) and the flat one (``wav``, ``json``) are recognised by their folder names; audio may be WAV
    or FLAC. A recording that two releases hold counts once, for the earlier one, so that it cannot be in a test set
    and a training set at the same time.

    Raises:
        UserError: there is no such folder, none of the layouts or nothing in it, a folder holds one name twice, or a
            folder of annotations has none of audio beside it.
    """
    if not data_dir.is_dir():
        raise UserError(data_dir, "there is no such folder", NO_DATA_HINT)
    pairs: dict[str, SourcePair] = {}
    repeated = 0
    for json_dir, audio_dirs in _folders(data_dir).items():
        for pair in _pairs_of(json_dir, audio_dirs):
            repeated += pair.stem in pairs
            pairs.setdefault(pair.stem, pair)
    if not pairs:
        what = "holds nothing of SPRSound in any of its layouts"
        raise UserError(data_dir, what, f"{NO_DATA_HINT}; other data needs no preprocessing, see docs/datasets.md")
    if repeated:
        logger.warning("%d recordings are in two releases; each counts for the earlier one", repeated)
    return sorted(pairs.values(), key=lambda pair: (pair.split, pair.stem))


NO_DATA_HINT = "fetch SPRSound: python preprocess.py --download, or make the synthetic set: --demo"


def _folders(data_dir: Path) -> dict[Path, list[Path]]:
    """For each folder of annotations in the layouts, those of its audio (``train_wav`` and ``train_flac`` share one).

    They are in the data folder itself, or one release folder down, or in releases/.
    """
    places = [data_dir, data_dir / "releases"]
    places += [child for place in tuple(places) if place.is_dir() for child in place.iterdir() if child.is_dir()]
    found = {
        folder
        for place in places
        if place.is_dir()
        for folder in place.iterdir()
        if folder.is_dir() and _FOLDER.fullmatch(folder.name)
    }
    folders: dict[Path, list[Path]] = {}
    for folder in sorted(found):
        kind = _FOLDER.fullmatch(folder.name)["kind"]
        audio_dirs = folders.setdefault(folder.with_name(folder.name.removesuffix(kind) + "json"), [])
        if kind != "json":
            audio_dirs.append(folder)
    return folders


def _pairs_of(json_dir: Path, audio_dirs: list[Path]) -> list[SourcePair]:
    match = _FOLDER.fullmatch(json_dir.name)
    split = "train"
    if match["part"] == "test":
        split = "test" if match["year"] in (None, "2022") else f"test{match['year']}"

    audio: dict[str, Path] = {}
    for path in [path for audio_dir in audio_dirs for path in _files(audio_dir, AUDIO_SUFFIXES)]:
        if path.stem in audio:
            raise UserError(path, f"is there twice: also {audio[path.stem]}", "remove one")
        audio[path.stem] = path

    annotations: dict[str, tuple[Path, str]] = {}
    for folder, part in [(json_dir, split)] + [(json_dir / name, part) for name, part in _JSON_SUBFOLDERS.items()]:
        for path in _files(folder, (".json",)) if folder.is_dir() else []:
            if path.stem in annotations:
                raise UserError(path, f"is annotated twice: also {annotations[path.stem][0]}", "remove one")
            annotations[path.stem] = (path, part)

    if annotations and not audio_dirs:
        name = json_dir.name.removesuffix("json")
        raise UserError(json_dir, f"holds annotations, but beside it is no {name}wav or {name}flac", NO_DATA_HINT)
    pairs = []
    for stem in sorted(audio.keys() | annotations.keys()):
        annotation, part = annotations.get(stem, (None, split))
        pairs.append(SourcePair(stem, audio.get(stem), annotation, part))
    return pairs


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a kind, sorted, without hidden ones, which macOS leaves beside the real ones.

    Folders and pipes of such a name are left out: from a pipe nothing may ever come.
    """
    named = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return sorted(p for p in named if p.is_file())
