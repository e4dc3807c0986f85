"""File names and annotation files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_loader.annotation import Event, parse_name, read_annotation
from utils.errors import UserError


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def event(start="0", end="100", type="Normal"):
    return {"start": start, "end": end, "type": type}


def test_a_name_says_patient_age_gender_location_and_number():
    name = parse_name(Path("65101170_0.4_0_p4_3248.wav"))
    assert (name.patient_id, name.age, name.gender, name.loc, name.rec_id) == ("65101170", 0.4, 0, "p4", 3248)


def test_anonymous_recordings_of_one_age_and_gender_count_as_one_patient():
    first, second, other = (parse_name(Path(n)) for n in ("_5.3_0_p8_1.wav", "_5.3_0_p1_2.wav", "_5.3_1_p1_3.wav"))
    assert first.patient_id == second.patient_id != other.patient_id


@pytest.mark.parametrize(
    "name", ["a.wav", "1_2_3.wav", "1_0.4_2_p4_3.wav", "1_0.4_0_p9_3.wav", "x_1_0.4_0_p4_3.wav", "1_0.4_0_p4_3\n.wav"]
)
def test_a_name_of_another_form_is_an_error_that_shows_the_form(name):
    with pytest.raises(UserError, match="patient_age_gender_location_recording"):
        parse_name(Path(name))


@pytest.mark.parametrize("key", ["record_annotation", "recording_annotation"])
@pytest.mark.parametrize("times", [("120", "340"), (120, 340), (120.0, "340.0")])
def test_both_spellings_and_both_types_of_times_are_read(tmp_path, key, times):
    content = {key: "CAS & DAS", "event_annotation": [event(*times, "Wheeze+Crackle")]}
    annotation = read_annotation(write(tmp_path / "a.json", content))
    assert annotation.record_label == "CAS & DAS"
    assert annotation.events == (Event(120, 340, "Wheeze & Crackle"),)


def test_an_annotation_with_events_only_has_no_record_label(tmp_path):
    annotation = read_annotation(write(tmp_path / "a.json", {"event_annotation": [event()]}))
    assert annotation.record_label is None
    assert len(annotation.events) == 1


@pytest.mark.parametrize(
    "content, what",
    [
        ("{", "not a readable JSON"),
        ("[" * 100_000, "not a readable JSON"),
        ("9" * 5000, "not a readable JSON"),
        ("[]", "no list event_annotation"),
        ({"record_annotation": "Normal"}, "no list event_annotation"),
        ({"record_annotation": "Fine", "event_annotation": []}, "unknown label 'Fine'"),
        ({"record_annotation": 3, "event_annotation": []}, "unknown label 3"),
        ({"event_annotation": [event(type="Cough")]}, "event 1 has the unknown label 'Cough'"),
        ({"event_annotation": [{"start": 1}]}, "event 1 lacks"),
        ({"event_annotation": [event("1.5")]}, "event 1 has the time '1.5'"),
        ({"event_annotation": [event(True)]}, "event 1 has the time True"),
        ({"event_annotation": [event(0, 1e300)]}, "event 1 has the time"),
        ({"event_annotation": [event("nan")]}, "event 1 has the time 'nan'"),
        ({"event_annotation": [event("soon")]}, "event 1 has the time 'soon'"),
        ({"event_annotation": [event("200", "100")]}, "runs from 200 ms to 100 ms"),
        ({"event_annotation": [event("-5", "100")]}, "runs from -5 ms"),
    ],
)
def test_what_is_wrong_with_an_annotation_is_said_with_its_file(tmp_path, content, what):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(UserError, match=what) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"event_annotation": [event()]}), encoding="utf-8-sig")
    assert len(read_annotation(path).events) == 1


def test_an_empty_key_gives_way_to_the_other_spelling(tmp_path):
    content = {"record_annotation": None, "recording_annotation": "DAS", "event_annotation": []}
    assert read_annotation(write(tmp_path / "a.json", content)).record_label == "DAS"


@pytest.mark.parametrize("key", ["start", "event_annotation"])
def test_a_key_twice_is_no_silent_choice(tmp_path, key):
    text = json.dumps({"event_annotation": [event()]}).replace(f'"{key}"', f'"{key}": 1, "{key}"')
    with pytest.raises(UserError, match=f"a.json: is not a readable JSON file: it holds the key {key} twice"):
        read_annotation(write(tmp_path / "a.json", text))
