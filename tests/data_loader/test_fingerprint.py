"""Audio files that changed after the tables were made."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from data_loader.fingerprint import refuse_changed_audio, split_fingerprints
from data_loader.tables import read_table
from utils.errors import UserError


def test_files_as_they_were_pass_and_the_first_that_changed_is_named(own_data):
    table = read_table(own_data, 1)
    refuse_changed_audio(table, own_data)
    path = own_data / table["path"].iloc[-1]
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    with pytest.raises(UserError) as caught:
        refuse_changed_audio(table, own_data)
    assert caught.value.subject == str(path)
    # What is not scored does not matter.
    refuse_changed_audio(table[table["path"] != table["path"].iloc[-1]], own_data)


def test_files_that_are_not_there_and_pipes_are_left_to_who_reads_them(own_data):
    table = read_table(own_data, 2)
    first, second = (own_data / path for path in table["path"][:2])
    first.unlink()
    second.unlink()
    os.mkfifo(second)
    refuse_changed_audio(table, own_data)


def test_tables_without_digests_are_not_compared(own_data):
    table = read_table(own_data, 2).drop(columns="digest")
    (own_data / table["path"].iloc[0]).write_bytes(b"")
    refuse_changed_audio(table, own_data)


def test_where_files_lie_and_how_events_are_numbered_is_no_content():
    table = pd.DataFrame({"wav_name": ["a.wav", "b.wav"], "split": "train", "path": ["x", "y"], "event_id": [0, 1]})
    moved = table.assign(path="z", event_id=[5, 6])
    assert split_fingerprints(table) == split_fingerprints(moved)
    assert split_fingerprints(table) != split_fingerprints(table.assign(wav_name="c.wav"))


def test_a_digest_of_digits_stays_text(own_data):
    path = own_data / "task2.csv"
    table = pd.read_csv(path, dtype=str)
    table["digest"] = "0012345678901234"
    table.to_csv(path, index=False)
    assert set(read_table(own_data, 2)["digest"]) == {"0012345678901234"}
