"""Damaged annotation files, and odd file names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from data_loader.annotation import parse_name, read_annotation
from data_loader.classes import EVENT_TYPES, RECORD_TYPES
from data_loader.tables import build_tables, read_table, summary, write_tables
from tests.fuzz.harness import answer, check_error, damaged, edited, edits, fuzz
from utils.errors import UserError

ANNOTATION = {
    "record_annotation": "CAS & DAS",
    "event_annotation": [
        {"start": "10", "end": "420", "type": "Wheeze+Crackle"},
        {"start": 500, "end": 900, "type": "Normal"},
    ],
}
WHOLE = json.dumps(ANNOTATION).encode()
# How JSON is written by those who do not use a library, or use another one.
WRITTEN = [
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("utf-8-sig", "surrogatepass"),
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.encode("utf-32", "surrogatepass"),
    lambda text: text.replace('"', "'").encode("utf-8", "surrogatepass"),
    lambda text: text.replace(": ", ": \0").encode("utf-8", "surrogatepass"),
    lambda text: (text[:-1] + ', "event_annotation": []}').encode("utf-8", "surrogatepass"),
    lambda text: (text + text).encode("utf-8", "surrogatepass"),
]


def check(path, content):
    path.write_bytes(content)
    result = answer(lambda: read_annotation(path), path)
    if isinstance(result, UserError):
        return True
    assert result.record_label is None or result.record_label in RECORD_TYPES
    assert all(0 <= event.start_ms < event.end_ms and event.label in EVENT_TYPES for event in result.events)
    return False


@pytest.fixture
def path(tmp_path):
    return tmp_path / "1_1.0_0_p1_1.json"


def test_damaged_annotations_are_read_or_refused(path):
    fuzz("annotation", 300, damaged(WHOLE), lambda content: check(path, content))


def test_an_annotation_may_hold_any_values(path):
    strategy = st.tuples(edits(ANNOTATION), st.sampled_from([*WRITTEN[:1] * 6, *WRITTEN]))

    def refused(drawn):
        changes, written = drawn
        return check(path, written(json.dumps(edited(ANNOTATION, changes), ensure_ascii=False)))

    fuzz("annotation", 300, strategy, refused)


def test_times_may_be_anything(path):
    number = st.one_of(st.integers(-5, 1100), st.integers(), st.floats(), st.text(max_size=6)).flatmap(
        lambda value: st.sampled_from([value, str(value)])
    )
    event = st.fixed_dictionaries(
        {"start": number, "end": number, "type": st.sampled_from([*EVENT_TYPES, "", "wheeze"])}
    )

    def refused(events):
        return check(path, json.dumps({"event_annotation": events}).encode("utf-8", "surrogatepass"))

    fuzz("annotation", 150, st.lists(event, max_size=4), refused)


def test_file_names_may_be_anything():
    name = st.one_of(
        st.text(max_size=30),
        st.from_regex(r"\A[0-9٣]{0,3}_[0-9.]{1,4}_[012]_p[0-9]_[0-9]{1,3}\.(wav|flac)\Z"),
    )

    def refused(text):
        text = text.replace("/", "_").replace("\0", "_")
        result = answer(lambda: parse_name(Path(text)), text if text.strip("./ ") else "")
        if isinstance(result, UserError):
            return True
        assert result.age >= 0
        assert result.patient_id
        return False

    fuzz("file name", 150, name, refused)


def test_a_data_folder_of_damaged_files_gives_tables_that_can_be_read_back(tiny_data, tmp_path):
    import shutil

    source = tiny_data / "BioCAS2022"
    wavs, annotations = sorted((source / "train2022_wav").iterdir())[:3], source / "train2022_json"
    folder = tmp_path / "data"
    whole = [(path.name, path.read_bytes()) for path in wavs]
    whole += [(path.stem + ".json", (annotations / (path.stem + ".json")).read_bytes()) for path in wavs]
    damage = st.lists(
        st.sampled_from(whole).flatmap(lambda file: st.tuples(st.just(file[0]), damaged(file[1], header=44))),
        min_size=1,
        max_size=3,
    )

    def refused(files):
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("wav", "json"):
            (folder / name).mkdir(parents=True)
        for name, content in [*whole, *files]:
            (folder / name.rpartition(".")[2] / name).write_bytes(content)
        tables = answer(lambda: build_tables(folder), folder)
        for error in tables.bad:
            check_error(error, *(name for name, _ in files))
        assert len(tables.bad) <= len({name for name, _ in files})
        assert len(tables.task2) + len(tables.bad) >= len(wavs)
        write_tables(tables, folder)
        if len(tables.task2):
            summary(tables)
        for task in (1, 2):
            assert len(read_table(folder, task)) == len(tables.of(task))
        return bool(tables.bad)

    fuzz("data folder", 25, damage, refused)
