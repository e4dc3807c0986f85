"""JSON from outside."""

from __future__ import annotations

import json
import os

import pytest

from utils.strict_json import check_plain, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "holds the key b twice"),
        ("[NaN]", "holds nan"),
        ("[-Infinity]", "holds -inf"),
        ("[1e999]", "holds inf"),
        ("[9223372036854775808]", "a whole number of 64 bits"),
        ("9" * 5000, "digits"),
        ('["\\ud800"]', "surrogates"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[1,]", "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_what_other_readers_do_not_take_is_refused(text, what):
    with pytest.raises(ValueError, match=what):
        parse_json(text)


def test_the_rest_is_read_as_python_reads_it():
    text = '{"a": [1, -2.5, "é \\u00e9", true, null, {"b": {}}], "": 9223372036854775807}'
    assert parse_json(text) == json.loads(text)


def test_a_byte_order_mark_is_no_error_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == [1]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_many_equal_keys_take_no_time_to_find():
    # By comparing each with each, 200,000 keys would take minutes.
    with pytest.raises(ValueError, match="holds the key k0 twice"):
        parse_json("{" + ",".join(f'"k{n}":0' for n in range(200_000)) + ',"k0":0}')


def test_a_list_within_itself_many_times_over_is_too_much_and_not_written_out():
    value = [0]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(ValueError, match="more than"):
        check_plain(value)
    value.append(value)
    with pytest.raises(ValueError, match="it"):
        check_plain(value)


@pytest.mark.parametrize("value", [{1: 2}, [{1, 2}], {"a": object()}, [b"x"]])
def test_what_json_has_not_is_refused(value):
    with pytest.raises(ValueError, match="it holds"):
        check_plain(value)


def test_file_names_that_are_no_text_are_plain():
    check_plain({"data_dir": os.fsdecode(b"/data/\xff")})
