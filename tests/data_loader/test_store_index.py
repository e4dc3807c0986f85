"""Where items are, by what names them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_loader.store_index import CSV, INDEX_COLUMNS, NPY, StoreIndex, item_keys, read_index, write_index
from utils.errors import UserError

SHARDS = {"task1-0.npy": 3, "task2-0.npy": 2}
ROWS = [
    # An event annotated twice, one of the same times in another recording, and two recordings.
    [1, "a.wav", 0, 100, 200, "task1-0.npy", 0],
    [1, "a.wav", 1, 100, 200, "task1-0.npy", 1],
    [1, "b.wav", 2, 100, 200, "task1-0.npy", 2],
    [2, "a.wav", -1, -1, -1, "task2-0.npy", 0],
    [2, "b.wav", -1, -1, -1, "task2-0.npy", 1],
]


@pytest.fixture
def folder(tmp_path):
    write_index(tmp_path, pd.DataFrame(ROWS, columns=INDEX_COLUMNS), SHARDS)
    return tmp_path


def opened(folder, shards=SHARDS):
    return StoreIndex(folder, shards, "make it anew")


def table(*rows):
    return pd.DataFrame(rows, columns=["wav_name", "start_ms", "end_ms"])


def test_events_are_found_by_recording_and_times(folder):
    wanted = table(["b.wav", 100, 200], ["a.wav", 100, 200], ["a.wav", 100, 201], ["c.wav", 100, 200])
    assert opened(folder).find(wanted, 1).tolist() == [[0, 2], [0, 0], [-1, -1], [-1, -1]]


def test_recordings_are_found_by_name(folder):
    wanted = pd.DataFrame({"wav_name": ["c.wav", "b.wav", "a.wav"]})
    assert opened(folder).find(wanted, 2).tolist() == [[-1, -1], [1, 1], [1, 0]]
    assert opened(folder).find(wanted[:0], 2).shape == (0, 2)


def test_columns_of_other_types_find_the_same(folder):
    wanted = table(["b.wav", 100, 200]).astype({"wav_name": "category", "start_ms": np.int32, "end_ms": np.int16})
    assert opened(folder).find(wanted, 1).tolist() == [[0, 2]]


def test_keys_are_those_of_the_stores_that_there_are():
    assert item_keys(table(["a.wav", 100, 200])).tolist() == [14482838801864815473]
    assert item_keys(pd.DataFrame({"wav_name": ["a.wav"]})).tolist() == [2261898508952724613]


def test_many_items_are_found_as_a_merge_of_tables_finds_them(tmp_path):
    generator = np.random.default_rng(0)
    items = 3000
    start = generator.integers(1000, size=items)
    index = pd.DataFrame({"wav_name": [f"{number}.wav" for number in generator.integers(200, size=items)]})
    index = index.assign(task=1, event_id=range(items), start_ms=start, end_ms=start + generator.integers(1, 5, items))
    index = index.assign(shard=[f"{number // 512}.npy" for number in range(items)], row=np.arange(items) % 512)
    shards = index.groupby("shard").size().to_dict()
    write_index(tmp_path, index, shards)
    keys = ["wav_name", "start_ms", "end_ms"]
    wanted = index[keys].sample(1000, random_state=0, ignore_index=True)
    wanted.loc[::7, "end_ms"] += 10
    first = index.drop_duplicates(keys)
    expected = wanted.merge(first, on=keys, how="left")
    expected["shard"] = expected["shard"].map({name: number for number, name in enumerate(shards)})
    found = opened(tmp_path, shards).find(wanted, 1)
    np.testing.assert_array_equal(found, expected[["shard", "row"]].fillna(-1).astype(int))
    assert (found < 0).any()


def test_anybody_can_read_the_list(folder):
    assert pd.read_csv(folder / CSV).to_numpy().tolist() == ROWS
    assert read_index(folder, SHARDS).to_numpy().tolist() == ROWS


def test_a_list_that_was_changed_by_hand_is_not_taken_over(folder):
    path = folder / CSV
    for then, now in (("b.wav", "c.wav"), ("100", "101")):
        content = path.read_text()
        path.write_text(content.replace(then, now, 1))
        with pytest.raises(UserError, match=r"index\.csv: lists other items than index\.npy .--force"):
            read_index(folder, SHARDS)
        path.write_text(content)
    assert len(read_index(folder, SHARDS)) == len(ROWS)


def replaced(change):
    return lambda path: np.save(path, change(np.load(path)))


def place(column, row, value):
    def change(array):
        array[row, column] = value
        return array

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0 rubbish"),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        replaced(lambda array: array[:, :-1]),
        replaced(lambda array: array.astype(np.int64)),
        replaced(lambda array: array.T),
        replaced(place(slice(None), 1, 2)),
        replaced(place(slice(None), 2, 3)),
        replaced(place(slice(None), 1, 2**64 - 1)),
    ],
)
def test_a_damaged_index_is_said(folder, damage):
    damage(folder / NPY)
    with pytest.raises(UserError, match=r"index\.npy: .*make it anew"):
        opened(folder).find(table(["a.wav", 100, 200]), 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text.replace(",0\n", ",zero\n"),
        lambda text: text.replace(",0\n", ",\n"),
        lambda text: text.replace(",row\n", ",line\n"),
        lambda text: "\n".join(text.splitlines()[:-1]) + "\n",
        lambda text: "\n".join(text.splitlines()[:2] + text.splitlines()[3:]) + "\n",
        lambda text: text.replace("task1-0", "task1-1"),
        lambda text: text.replace("task1-0.npy", ""),
        lambda text: text.replace(".npy,1\n", ".npy,0\n"),
    ],
)
def test_a_damaged_list_is_said(folder, spoil):
    (folder / CSV).write_text(spoil((folder / CSV).read_text()))
    with pytest.raises(UserError, match=r"index\.csv: .*--force"):
        read_index(folder, SHARDS)
