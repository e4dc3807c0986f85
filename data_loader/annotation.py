"""SPRSound's file names and annotation files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from data_loader.classes import EVENT_TYPES, RECORD_TYPES, canonical
from utils.errors import UserError
from utils.strict_json import read_json

_AGE_TO_RECORDING = r"(?P<age>\d+(?:\.\d+)?)_(?P<gender>[01])_(?P<loc>p[1-8])_(?P<rec_id>\d+)"
_NAME = re.compile(r"(?P<patient>\d+)_" + _AGE_TO_RECORDING)
_ANONYMOUS = re.compile("_" + _AGE_TO_RECORDING)
# More than the longest recording: beyond it a time is a slip of the pen.
_LONGEST_MS = 1e9
_NAME_HINT = "expected patient_age_gender_location_recording, as in 65101170_0.4_0_p4_3248"


@dataclass(frozen=True)
class RecordingName:
    """What a SPRSound file name says.

    Attributes:
        patient_id: the patient's number. The anonymous patients of the newer releases have none: all their
            recordings of one age and gender count as one patient, ``anonymous_<age>_<gender>``, because they may
            be, and a split must then keep them together.
        age: years.
        gender: 0 male, 1 female.
        loc: where on the chest, p1 to p8.
        rec_id: the recording's number.
    """

    patient_id: str
    age: float
    gender: int
    loc: str
    rec_id: int


@dataclass(frozen=True)
class Event:
    """One annotated event: start and end in milliseconds from the start of the recording, and its type."""

    start_ms: int
    end_ms: int
    label: str


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says. The releases of 2024 and 2025 have no record label: it is None there."""

    record_label: str | None
    events: tuple[Event, ...]


def parse_name(path: Path) -> RecordingName:
    """Read patient, age, gender, location and number off a file's name.

    Raises:
        UserError: the name has another form.

    >>> parse_name(Path("65101170_0.4_0_p4_3248.wav")).patient_id
    '65101170'
    >>> parse_name(Path("_5.3_0_p8_34877.wav")).patient_id
    'anonymous_5.3_0'
    """
    match = _NAME.fullmatch(path.stem) or _ANONYMOUS.fullmatch(path.stem)
    if not match:
        raise UserError(path, "the file name has another form than SPRSound's", _NAME_HINT)
    parts = match.groupdict()
    age = float(parts["age"])
    # The number, not its spelling: 5 and 5.0 are one age.
    patient_id = parts.get("patient") or f"anonymous_{age}_{parts['gender']}"
    return RecordingName(patient_id, age, int(parts["gender"]), parts["loc"], int(parts["rec_id"]))


def read_annotation(path: Path) -> Annotation:
    """Read an annotation file.

    Both spellings of the record's key (``record_annotation`` in the files, ``recording_annotation`` in the data
    set's README) and both types of the times (strings and integers) are accepted.

    Raises:
        UserError: not JSON, a key is missing, a label is unknown, a time is not a whole number of milliseconds, or
            an event ends before it begins.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(path, f"is not a readable JSON file: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("event_annotation"), list):
        raise UserError(path, "has no list event_annotation")
    record = content.get("record_annotation")
    if record is None:
        record = content.get("recording_annotation")
    if record is not None:
        record = _label(path, record, RECORD_TYPES, "record")
    events = tuple(_event(path, number, item) for number, item in enumerate(content["event_annotation"], start=1))
    return Annotation(record, events)


def _event(path: Path, number: int, item: object) -> Event:
    if not isinstance(item, dict) or not {"start", "end", "type"} <= item.keys():
        raise UserError(path, f"event {number} lacks start, end or type")
    start, end = (_milliseconds(path, number, item[key]) for key in ("start", "end"))
    if not 0 <= start < end:
        raise UserError(path, f"event {number} runs from {start} ms to {end} ms")
    return Event(start, end, _label(path, item["type"], EVENT_TYPES, f"event {number}"))


def _milliseconds(path: Path, number: int, value: object) -> int:
    try:
        time = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        time = math.nan
    if not abs(time) < _LONGEST_MS or time != int(time):
        raise UserError(path, f"event {number} has the time {value!r}", "expected whole milliseconds")
    return int(time)


def _label(path: Path, label: object, known: tuple[str, ...], what: str) -> str:
    name = canonical(label, known) if isinstance(label, str) else None
    if name is None:
        raise UserError(path, f"{what} has the unknown label {label!r}", f"known are {', '.join(known)}")
    return name
