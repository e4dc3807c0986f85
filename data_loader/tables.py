"""The tables that preprocessing writes: task1.csv (events), task2.csv (recordings), task2_filtered.csv."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data_loader.annotation import parse_name, read_annotation
from data_loader.audio import AudioInfo, check_audio
from data_loader.classes import POOR_QUALITY, coarse, resp_classes
from data_loader.fingerprint import with_digests
from data_loader.layout import NO_DATA_HINT, SourcePair, find_pairs
from data_loader.splits import is_test_split
from logger.progress import progress_bar
from utils.distributed import join_shares, my_share
from utils.errors import UserError
from utils.files import atomic_write_text

_WHO = ["wav_name", "patient_id", "age", "gender", "loc", "rec_id"]
TASK1_COLUMNS = [*_WHO, "event_id", "start_ms", "end_ms", "label_11", "label_12", "split", "path"]
TASK2_COLUMNS = [*_WHO, "duration_ms", "label_21", "label_22", "split", "path"]
_TEXT_COLUMNS = ["wav_name", "patient_id", "loc", "split", "path", "label_11", "label_12", "label_21", "label_22"]
_TEXT_COLUMNS += ["digest"]
TABLE_FILES = {1: "task1.csv", 2: "task2.csv"}
FILTERED_FILE = "task2_filtered.csv"
# More than any table of ours has.
_MOST_COLUMNS = 100
_TEST_FOLDER = r"(?:^|/)test(?:\d{4})?_(?:wav|flac)/"
# An annotator's end may be rounded up to the next millisecond.
_END_TOLERANCE_MS = 1.0


@dataclass(frozen=True)
class Tables:
    """Events and recordings of a data set.

    Attributes:
        task1: one event a row. Times are in milliseconds from the start of the recording.
        task2: one recording a row, also those that have no label (label_21 and label_22 are then empty).
        digests: a digest of the bytes of each audio file, by its path relative to the data folder.
        bad: what could not be used, one error a file.
    """

    task1: pd.DataFrame
    task2: pd.DataFrame
    digests: dict[str, str]
    bad: list[UserError]

    def of(self, task: int) -> pd.DataFrame:
        """The table of a task; for task 2 the recordings that have a label."""
        return self.task1 if task == 1 else self.task2[self.task2["label_22"].notna()]


def build_tables(data_dir: Path, progress: bool = False) -> Tables:
    """Read all names and annotations below `data_dir`, and decode all audio once to check it.

    Under torchrun each process decodes a share.

    Raises:
        UserError: see `find_pairs`. What is wrong with single files is gathered in `Tables.bad`.
    """
    pairs = find_pairs(data_dir)
    events: list[dict] = []
    recordings: list[dict] = []
    digests: dict[str, str] = {}
    bad: list[UserError] = []
    # libsndfile decodes outside the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        mine = my_share(pairs)
        checked = pool.map(_check_pair, mine)
        results = list(progress_bar(checked, desc="check", unit="file", total=len(mine), disable=not progress))
    for pair, result in zip(pairs, join_shares(results), strict=True):
        try:
            if isinstance(result, UserError):
                raise result
            recording, its_events = _rows(data_dir, pair, result)
        except UserError as error:
            bad.append(error)
            continue
        recordings.append(recording)
        digests[recording["path"]] = result.digest
        events += its_events
    for event_id, event in enumerate(events):
        event["event_id"] = event_id
    task1 = pd.DataFrame(events, columns=TASK1_COLUMNS)
    return Tables(task1, pd.DataFrame(recordings, columns=TASK2_COLUMNS), digests, bad)


def _check_pair(pair: SourcePair) -> AudioInfo | UserError:
    if pair.audio is None:
        return UserError(pair.annotation, "is an annotation without audio", f"there is no {pair.stem}.wav or .flac")
    if pair.annotation is None:
        return UserError(pair.audio, "is a recording without annotation", f"there is no {pair.stem}.json")
    try:
        return check_audio(pair.audio)
    except UserError as error:
        return error


def _rows(data_dir: Path, pair: SourcePair, audio: AudioInfo) -> tuple[dict, list[dict]]:
    name = parse_name(pair.audio)
    annotation = read_annotation(pair.annotation)
    duration_ms = 1000 * audio.seconds
    common = {
        "wav_name": pair.audio.name,
        "patient_id": name.patient_id,
        "age": name.age,
        "gender": name.gender,
        "loc": name.loc,
        "rec_id": name.rec_id,
        "split": pair.split,
        "path": pair.audio.relative_to(data_dir).as_posix(),
    }
    label = annotation.record_label
    recording = common | {
        "duration_ms": round(duration_ms),
        "label_21": coarse(label) if label else None,
        "label_22": label,
    }
    events = []
    for number, event in enumerate(annotation.events, start=1):
        if event.end_ms > duration_ms + _END_TOLERANCE_MS:
            raise UserError(
                pair.annotation, f"event {number} ends at {event.end_ms} ms, the recording at {duration_ms:.0f} ms"
            )
        labels = {"label_11": coarse(event.label), "label_12": event.label}
        events.append(common | {"start_ms": event.start_ms, "end_ms": event.end_ms} | labels)
    return recording, events


def write_tables(tables: Tables, data_dir: Path) -> None:
    """Write task1.csv, task2.csv and task2_filtered.csv (without Poor Quality), each aside and renamed.

    Their column `digest` is of the audio file's bytes.
    """
    labelled = with_digests(tables.of(2), tables.digests)
    contents = {
        TABLE_FILES[1]: with_digests(tables.of(1), tables.digests),
        TABLE_FILES[2]: labelled,
        FILTERED_FILE: labelled[labelled["label_22"] != POOR_QUALITY],
    }
    for file, table in contents.items():
        atomic_write_text(data_dir / file, table.to_csv(index=False, lineterminator="\n"))


def read_table(data_dir: Path, task: int, filtered: bool = False) -> pd.DataFrame:
    """Read a table back.

    Raises:
        UserError: the file is missing, not a table, lacks a column, or holds a label that is none of the task's, an
            event that ends before it begins, or a recording of a test set among others.
    """
    path = data_dir / (FILTERED_FILE if filtered and task == 2 else TABLE_FILES[task])
    if not path.is_file():
        hint = f"run: python preprocess.py --data-dir {data_dir} --method METHOD"
        raise UserError(path, "there is no such table", hint if data_dir.is_dir() else NO_DATA_HINT)
    try:
        _refuse_odd_header(path)
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT_COLUMNS, str))
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(path, f"is not a readable table: {error}", "run preprocess.py again") from error
    wanted = TASK1_COLUMNS if task == 1 else TASK2_COLUMNS
    if missing := [column for column in wanted if column not in table.columns]:
        raise UserError(path, f"lacks the columns {', '.join(missing)}", "run preprocess.py again")
    for level in (1, 2):
        column = f"label_{task}{level}"
        if unknown := sorted(set(table[column].dropna().unique()) - set(resp_classes(task, level)), key=str):
            raise UserError(path, f"column {column} holds the unknown label {unknown[0]!r}")
    if table[wanted].isna().any(axis=None):
        raise UserError(path, "has empty cells", "run preprocess.py again")
    if task == 1 and len(table):
        for column in ("start_ms", "end_ms"):
            if table[column].dtype.kind != "i":
                what = f"column {column} holds other things than whole numbers"
                raise UserError(path, what, "run preprocess.py again")
        if (wrong := ~table["start_ms"].between(0, table["end_ms"], inclusive="left")).any():
            start, end = table.loc[wrong, ["start_ms", "end_ms"]].iloc[0]
            raise UserError(path, f"holds an event from {start} ms to {end} ms", "run preprocess.py again")
    _refuse_paths_elsewhere(path, table)
    _refuse_mixed_splits(path, table)
    return table


def _refuse_odd_header(path: Path) -> None:
    """pandas gives each of many columns of one name a number, for which it takes hours."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header = next(csv.reader(file), [])
    if len(header) > _MOST_COLUMNS:
        raise UserError(path, f"has {len(header):,} columns", "run preprocess.py again")


def _refuse_paths_elsewhere(path: Path, table: pd.DataFrame) -> None:
    """Refuse audio files that are not in the data folder."""
    places = table["path"]
    elsewhere = places.str.startswith("/")
    # The plain search first, as below.
    if places.str.contains("..", regex=False).any():
        elsewhere |= places.str.contains(r"(?:^|/)\.\.(?:/|$)")
    if elsewhere.any():
        raise UserError(path, f"names {places[elsewhere].iloc[0]}, outside of its folder", "run preprocess.py again")


def _refuse_mixed_splits(path: Path, table: pd.DataFrame) -> None:
    """Refuse what `build_tables` never writes: a recording of two splits, or one of a test folder as another's."""
    remedy = "run preprocess.py again"
    if table["split"].nunique() > 1:
        recordings = table[["wav_name", "split"]].drop_duplicates()
        stems = recordings["wav_name"].str.rsplit(".", n=1).str[0]
        if (twice := stems.duplicated()).any():
            name = stems[twice].iloc[0]
            raise UserError(path, f"has {name} in the splits {', '.join(recordings['split'][stems == name])}", remedy)
    # The plain search first: of a million paths it takes a tenth of the time.
    in_test = table[table["path"].str.contains("test", regex=False)]
    in_test = in_test[in_test["path"].str.contains(_TEST_FOLDER)]
    if (wrong := ~in_test["split"].map(is_test_split).astype(bool)).any():
        split, place = in_test.loc[wrong, ["split", "path"]].iloc[0]
        raise UserError(path, f"has {place} in the split {split}, but its folder is of a test set", remedy)


def summary(tables: Tables) -> str:
    """The counts of a data set as text: classes, patients, hours, shortest and longest, a split a block."""
    blocks = []
    for split in sorted(set(tables.task2["split"]), key=lambda name: (name != "train", name)):
        recordings = tables.task2[tables.task2["split"] == split]
        events = tables.task1[tables.task1["split"] == split]
        seconds = recordings["duration_ms"] / 1000
        lengths = events["end_ms"] - events["start_ms"]
        lines = [
            f"{split}: {len(recordings):,} recordings of {recordings['patient_id'].nunique():,} patients, "
            f"{seconds.sum() / 3600:.2f} h (shortest {seconds.min():.3f} s, longest {seconds.max():.3f} s)"
        ]
        lines += _class_lines("recordings", recordings, "label_22", resp_classes(2, 2))
        if len(events):
            lines.append(
                f"  {len(events):,} events, {lengths.sum() / 3.6e6:.2f} h "
                f"(shortest {lengths.min()} ms, longest {lengths.max()} ms)"
            )
            lines += _class_lines("events", events, "label_12", resp_classes(1, 2))
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _class_lines(what: str, table: pd.DataFrame, column: str, classes: tuple[str, ...]) -> list[str]:
    lines = [f"    {'class':<18}{what:>12}{'patients':>10}{'share':>8}"]
    for name in classes:
        rows = table[table[column] == name]
        share = len(rows) / len(table) if len(table) else 0.0
        lines.append(f"    {name:<18}{len(rows):>12,}{rows['patient_id'].nunique():>10,}{share:>8.1%}")
    unlabelled = int(table[column].isna().sum())
    if unlabelled:
        lines.append(f"    {'(no label)':<18}{unlabelled:>12,}")
    return lines
