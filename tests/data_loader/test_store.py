"""Opening a feature store, whole or damaged."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from data_loader.store import STORE_VERSION, FeatureStore, read_meta
from data_loader.store_index import read_index
from data_loader.tables import read_table
from utils.errors import UserError


def test_items_are_where_the_list_says(tiny_data):
    folder = tiny_data / "processed_stft"
    store = FeatureStore(folder)
    index = read_index(folder, read_meta(folder).shards)
    for task in (1, 2):
        its_rows = index[index["task"] == task].sample(20, replace=True, random_state=0)
        items = store.gather(store.locate(its_rows if task == 1 else its_rows[["wav_name", "digest"]], task))
        for item, (shard, row) in zip(items, its_rows[["shard", "row"]].to_numpy(), strict=True):
            np.testing.assert_array_equal(item, np.load(folder / shard, mmap_mode="r")[row])


def test_a_store_sent_to_another_process_opens_its_files_there(tiny_data):
    store = FeatureStore(tiny_data / "processed_stft")
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    places = store.locate(read_table(tiny_data, 2), 2)[:3]
    np.testing.assert_array_equal(pickle.loads(sent).gather(places), store.gather(places))


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"shape": "large"}, "shape is 'large'"),
        ({"shape": []}, "items of the shape"),
        ({"repeats": 0}, "items of the shape"),
        ({"dtype": "float99"}, "describes float99"),
        ({"items": [1, 2]}, "items is"),
        ({"shards": {"a.npy": 1}}, "lists shards of 1 rows"),
        ({"shards": {}}, "lists shards of 0 rows"),
        ({"weights": "a digest"}, "names the weights 'a digest'"),
        ({"colour": 1}, "colour"),
        ({"items": {"3": 138}}, "lists '3', which is neither a shard nor a task"),
        ({"items": {"1": 1}, "shards": {"../a.npy": 1}}, "lists '../a.npy', which is neither a shard nor a task"),
        ({"version": 7}, "is of version 7"),
    ],
)
def test_a_description_that_makes_no_sense_is_an_error(own_data, changes, what):
    path = own_data / "processed_stft" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=rf"{what}.*--force") as caught:
        FeatureStore(path.parent)
    assert "meta.json" in str(caught.value)


def test_a_store_of_an_older_version_is_told_from_a_damaged_one(own_data):
    path = own_data / "processed_stft" / "meta.json"
    content = json.loads(path.read_text()) | {"version": 1}
    del content["shards"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"is of version 1, this is {STORE_VERSION}.*--force"):
        FeatureStore(path.parent)


@pytest.mark.parametrize("spoil", ["meta.json", "index.npy", "shard", "no shard", "short shard"])
def test_a_damaged_store_is_an_error_that_names_the_file_and_the_remedy(own_data, spoil):
    folder = own_data / "processed_stft"
    shard = sorted(folder.glob("task1-*.npy"))[0]
    path = shard if "shard" in spoil else folder / spoil
    if spoil == "no shard":
        path.unlink()
    elif spoil == "short shard":
        np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(b"\x00 rubbish")
    with pytest.raises(UserError, match="--force") as caught:
        FeatureStore(folder).locate(read_table(own_data, 1), 1)
    assert path.name in str(caught.value)


def test_a_damaged_shard_matters_to_those_who_need_it_only(own_data):
    folder = own_data / "processed_stft"
    for path in folder.glob("task1-*.npy"):
        path.unlink()
    store = FeatureStore(folder)
    table = read_table(own_data, 2)
    assert len(store.gather(store.locate(table, 2))) == len(table)


def test_no_store_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=rf"preprocess\.py --data-dir {tmp_path} --method wavelet"):
        FeatureStore(tmp_path / "processed_wavelet")
