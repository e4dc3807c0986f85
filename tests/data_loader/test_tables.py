"""The tables that preprocessing writes."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_loader.tables import TASK1_COLUMNS, TASK2_COLUMNS, build_tables, read_table, summary, write_tables
from utils.errors import UserError

REAL_RECORDS = {"Normal": 1303, "DAS": 248, "Poor Quality": 177, "CAS": 126, "CAS & DAS": 95}
REAL_EVENTS = {
    "Normal": 5159,
    "Fine Crackle": 912,
    "Wheeze": 452,
    "Coarse Crackle": 49,
    "Rhonchi": 39,
    "Wheeze & Crackle": 30,
    "Stridor": 15,
}


def put(data_dir, stem, record="Normal", events=(), seconds=1.0):
    for folder in ("wav", "json"):
        (data_dir / folder).mkdir(parents=True, exist_ok=True)
    soundfile.write(data_dir / "wav" / f"{stem}.wav", np.full(int(8000 * seconds), 0.01, np.float32), 8000)
    content = {"event_annotation": [{"start": str(s), "end": str(e), "type": t} for s, e, t in events]}
    if record:
        content["record_annotation"] = record
    (data_dir / "json" / f"{stem}.json").write_text(json.dumps(content))


@pytest.mark.real
def test_the_counts_of_the_real_training_set_come_out_exactly(real_tables):
    tables = real_tables
    assert not tables.bad
    assert dict(tables.task2["label_22"].value_counts()) == REAL_RECORDS
    assert dict(tables.task1["label_12"].value_counts()) == REAL_EVENTS
    assert tables.task2["patient_id"].nunique() == 251
    assert (len(tables.task2), len(tables.task1)) == (1949, 6656)
    text = summary(tables)
    assert "1,949 recordings of 251 patients" in text
    assert "shortest 126 ms" in text


def test_tables_hold_the_columns_and_labels_of_both_levels(tmp_path):
    put(tmp_path, "1_0.4_0_p4_7", "CAS & DAS", [(0, 300, "Wheeze"), (400, 900, "Fine Crackle"), (900, 1000, "Normal")])
    put(tmp_path, "2_0.4_1_p1_8", "Poor Quality")
    write_tables(build_tables(tmp_path), tmp_path)
    events, recordings = read_table(tmp_path, 1), read_table(tmp_path, 2)
    assert list(events.columns) == [*TASK1_COLUMNS, "digest"]
    assert list(recordings.columns) == [*TASK2_COLUMNS, "digest"]
    assert list(events["label_11"]) == ["Adventitious", "Adventitious", "Normal"]
    assert list(events["label_12"]) == ["Wheeze", "Fine Crackle", "Normal"]
    assert list(recordings["label_21"]) == ["Adventitious", "Poor Quality"]
    assert list(recordings["patient_id"]) == ["1", "2"]
    assert list(read_table(tmp_path, 2, filtered=True)["label_22"]) == ["CAS & DAS"]


def test_recordings_without_a_label_are_counted_but_are_no_items_of_task_2(tmp_path):
    put(tmp_path, "_5.3_0_p8_1", None, [(0, 500, "Rhonchi")])
    put(tmp_path, "1_5.3_0_p8_2", "Normal")
    tables = build_tables(tmp_path)
    write_tables(tables, tmp_path)
    assert "(no label)" in summary(tables)
    assert list(read_table(tmp_path, 2)["wav_name"]) == ["1_5.3_0_p8_2.wav"]
    assert list(read_table(tmp_path, 1)["label_12"]) == ["Rhonchi"]


def test_all_bad_files_are_gathered(tmp_path):
    put(tmp_path, "1_1.0_0_p1_1", events=[(0, 1500, "Normal")])
    put(tmp_path, "1_1.0_0_p1_2")
    (tmp_path / "json" / "1_1.0_0_p1_2.json").unlink()
    put(tmp_path, "1_1.0_0_p1_3")
    (tmp_path / "wav" / "1_1.0_0_p1_3.wav").unlink()
    put(tmp_path, "1_1.0_0_p1_4")
    (tmp_path / "wav" / "1_1.0_0_p1_4.wav").write_bytes(b"")
    put(tmp_path, "1_1.0_0_p1_5")
    tables = build_tables(tmp_path)
    problems = "\n".join(map(str, tables.bad))
    for what in (
        "ends at 1500 ms",
        "recording without annotation",
        "annotation without audio",
        "not a readable audio",
    ):
        assert what in problems
    assert list(tables.task2["wav_name"]) == ["1_1.0_0_p1_5.wav"]


def test_an_end_rounded_up_by_a_millisecond_is_no_error(tmp_path):
    put(tmp_path, "1_1.0_0_p1_1", events=[(0, 1001, "Normal")])
    assert not build_tables(tmp_path).bad


@pytest.mark.parametrize(
    "spoil, what",
    [
        (lambda p: p.unlink(), "preprocess.py"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "task2.csv"),
        (lambda p: p.write_text("a,b\n1,2\n"), "lacks the columns"),
        (lambda p: p.write_text(p.read_text().replace("Poor Quality", "Bad")), "unknown label 'Bad'"),
        (lambda p: p.write_text(p.read_text().replace(",p1,", ",,")), "empty cells"),
    ],
)
def test_a_missing_or_damaged_table_is_an_error_that_names_it(tmp_path, spoil, what):
    put(tmp_path, "1_1.0_0_p1_1", "Poor Quality")
    write_tables(build_tables(tmp_path), tmp_path)
    spoil(tmp_path / "task2.csv")
    with pytest.raises(UserError, match=what) as caught:
        read_table(tmp_path, 2)
    assert "task2.csv" in str(caught.value)


def test_tables_do_not_depend_on_the_order_of_files(tiny_data, monkeypatch):
    from pathlib import Path

    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    again = build_tables(tiny_data)
    pd.testing.assert_frame_equal(again.task1, build_tables(tiny_data).task1)
    assert list(again.task2["wav_name"]) == list(read_table(tiny_data, 2)["wav_name"])


@pytest.mark.parametrize("value", ["soon", "1.5", "99999999999999999999"])
def test_a_time_that_is_no_whole_number_is_an_error(tmp_path, value):
    put(tmp_path, "1_1.0_0_p1_1", events=[(0, 777, "Normal")])
    write_tables(build_tables(tmp_path), tmp_path)
    path = tmp_path / "task1.csv"
    path.write_text(path.read_text().replace(",777,", f",{value},"))
    with pytest.raises(UserError, match=r"task1\.csv: column end_ms"):
        read_table(tmp_path, 1)


@pytest.mark.parametrize("times", ["-5,300", "300,300", "700,300"])
def test_a_time_before_the_recording_or_an_event_that_ends_before_it_begins_is_an_error(tmp_path, times):
    put(tmp_path, "1_1.0_0_p1_1", events=[(111, 777, "Normal")])
    write_tables(build_tables(tmp_path), tmp_path)
    path = tmp_path / "task1.csv"
    path.write_text(path.read_text().replace("111,777", times))
    with pytest.raises(UserError, match=r"task1\.csv: holds an event from"):
        read_table(tmp_path, 1)


def test_splits_that_are_numbers_stay_text(tmp_path):
    put(tmp_path, "1_1.0_0_p1_1", "Normal")
    write_tables(build_tables(tmp_path), tmp_path)
    path = tmp_path / "task2.csv"
    path.write_text(path.read_text().replace(",train,", ",2022,"))
    assert list(read_table(tmp_path, 2)["split"]) == ["2022"]


def test_a_folder_whose_name_is_no_text_is_an_error(tmp_path):
    put(tmp_path / "release", "1_1.0_0_p1_1", "Normal")
    (tmp_path / "release").rename(tmp_path / "\udcff")
    assert len(build_tables(tmp_path).bad) == 1


@pytest.mark.parametrize("place", ["/etc/passwd", "../elsewhere.wav", "wav/../../x.wav"])
def test_audio_outside_of_the_data_folder_is_refused(tmp_path, place):
    put(tmp_path, "1_0.4_0_p4_7")
    write_tables(build_tables(tmp_path), tmp_path)
    path = tmp_path / "task2.csv"
    path.write_text(path.read_text().replace("wav/1_0.4_0_p4_7.wav", place))
    with pytest.raises(UserError, match="outside of its folder"):
        read_table(tmp_path, 2)


def test_a_table_of_many_columns_of_one_name_is_refused_at_once(tmp_path):
    (tmp_path / "task2.csv").write_text("a," * 100_000 + "a\n")
    with pytest.raises(UserError, match="100,001 columns"):
        read_table(tmp_path, 2)
