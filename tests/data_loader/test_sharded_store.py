"""A store of any number of shards, read in any order, by any number of processes, with damaged shards left out."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from data_loader.extract import extract
from data_loader.features import methods
from data_loader.resp_data_loader import RespDataLoader
from data_loader.store import FeatureStore, read_meta
from data_loader.tables import build_tables, read_table
from utils.errors import UserError

PARAMS = {"n_mels": 8, "duration": 0.1}
COUNTS = (1, 3, 8)
NAME = "processed_mel"


@pytest.fixture(scope="module")
def tables(tiny_data):
    return build_tables(tiny_data)


def linked(tiny_data, folder):
    """A data folder without a store; the audio is linked."""
    folder.mkdir()
    for table in tiny_data.glob("*.csv"):
        shutil.copy(table, folder)
    (folder / "BioCAS2022").symlink_to(tiny_data / "BioCAS2022")
    return folder


def make(data_dir, tables, n_shards=None, tasks=(1, 2), **options):
    feature = methods["mel"]
    its_tables = {task: tables.of(task) for task in tasks}
    params = feature.checked(PARAMS, "mel")
    return extract(data_dir, feature, params, its_tables, tables.digests, n_shards=n_shards, **options)


@pytest.fixture(scope="module")
def stores(tiny_data, tables, tmp_path_factory):
    """For each number of shards a data folder with such a store."""
    root = tmp_path_factory.mktemp("stores")
    folders = {count: linked(tiny_data, root / str(count)) for count in COUNTS}
    for count, folder in folders.items():
        make(folder, tables, count)
    return folders


@pytest.fixture
def eight(stores, tmp_path):
    """A copy of the folder with eight shards, to damage."""
    return shutil.copytree(stores[8], tmp_path / "eight", symlinks=True)


def loader(data_dir, **options):
    given = {"batch_size": 16, "task": 1, "level": 2, "input_dir": NAME, "validation_split": 0.3} | options
    return RespDataLoader(str(data_dir), **given)


def shards_of(folder, task=1):
    return sorted((folder / NAME).glob(f"task{task}-*.npy"))


@pytest.mark.parametrize("count", COUNTS)
def test_a_store_has_as_many_shards_as_asked_for_and_their_names_hold_their_items(stores, count):
    for task in (1, 2):
        shards = shards_of(stores[count], task)
        assert len(shards) == count
        for number, path in enumerate(shards):
            items = re.fullmatch(rf"task{task}-{number:05d}-of-{count:05d}-(\d+)\.npy", path.name)[1]
            assert len(np.load(path, mmap_mode="r")) == int(items) > 0
    assert len(read_meta(stores[count] / NAME).shards) == 2 * count


@pytest.mark.parametrize("count", COUNTS[1:])
@pytest.mark.parametrize("task", [1, 2])
def test_a_sharded_store_gives_the_bits_of_one_with_a_single_shard(stores, tiny_data, count, task):
    table = read_table(tiny_data, task).sample(frac=1, random_state=0)
    one, many = (FeatureStore(stores[n] / NAME) for n in (1, count))
    np.testing.assert_array_equal(one.gather(one.locate(table, task)), many.gather(many.locate(table, task)))
    whole, parts = (loader(stores[n], task=task) for n in (1, count))
    assert whole.input_spec == parts.input_spec
    for epoch in (1, 2):
        for each in (whole, parts):
            each.set_epoch(epoch)
        for a, b in zip(whole, parts, strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.data, b.data)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_any_number_of_ranks_see_each_item_once(stores, count, ranks):
    alone = loader(stores[count], batch_size=1)
    data_of = {int(batch.index): batch.data[0] for part in ("train", "valid") for batch in alone.evaluation(part)}
    seen = {"train": [], "valid": []}
    drawn = []
    for rank in range(ranks):
        mine = loader(stores[count], rank=rank, world_size=ranks)
        mine.set_epoch(3)
        drawn += [index for batch in mine for index in batch.index.tolist()]
        for part, its_items in seen.items():
            for batch in mine.evaluation(part):
                its_items += batch.index.tolist()
                for index, data in zip(batch.index.tolist(), batch.data, strict=True):
                    assert torch.equal(data, data_of[index])
    assert sorted(seen["train"]) == alone.train_indices.tolist()
    assert sorted(seen["valid"]) == alone.valid_indices.tolist()
    # Training needs equally many steps of all ranks: fewer items than ranks are drawn a second time.
    assert set(drawn) == set(alone.train_indices)
    assert len(drawn) == -(-len(alone.train_indices) // ranks) * ranks


def test_another_number_of_shards_than_the_store_has_is_refused(eight, tables):
    assert make(eight, tables)[1] == make(eight, tables, 8)[1] == 0
    with pytest.raises(UserError, match=r"has 8 shards of task 1, not 3 \(--force makes it anew\)"):
        make(eight, tables, 3)
    make(eight, tables, 3, force=True)
    assert len(shards_of(eight)) == 3


def test_more_shards_than_recordings_to_fill_them_are_refused(tiny_data, tables, tmp_path):
    folder = linked(tiny_data, tmp_path / "data")
    with pytest.raises(UserError, match=r"--shards: is 1000, but only \d+ recordings .*take fewer"):
        make(folder, tables, 1000)
    assert not list(folder.glob("processed*"))


def test_an_interrupted_run_with_another_number_of_shards_is_not_continued(
    tiny_data, stores, tables, tmp_path, monkeypatch
):
    folder = linked(tiny_data, tmp_path / "data")

    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_loader.extract.write_index", stopped)
        with pytest.raises(KeyboardInterrupt):
            make(folder, tables, 3)
    assert list((tmp_path / "data" / f"{NAME}.partial").glob("*.npy"))
    make(folder, tables, 8)
    wanted = {path.name: path.read_bytes() for path in (stores[8] / NAME).iterdir()}
    assert {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == wanted


def test_a_store_from_before_the_names_had_counts_is_read_and_added_to(tiny_data, tables, stores, tmp_path):
    folder = linked(tiny_data, tmp_path / "data")
    make(folder, tables, 3, tasks=(2,))
    store = folder / NAME
    meta = json.loads((store / "meta.json").read_text())
    old_names = {name: re.sub(r"-\d+\.npy", ".npy", name) for name in meta["shards"]}
    for name, old in old_names.items():
        (store / name).rename(store / old)
    index = (store / "index.csv").read_text()
    for name, old in old_names.items():
        index = index.replace(name, old)
    (store / "index.csv").write_text(index)
    meta["shards"] = {old_names[name]: rows for name, rows in meta["shards"].items()}
    (store / "meta.json").write_text(json.dumps(meta))
    make(folder, tables)
    for task in (1, 2):
        table = read_table(folder, task)
        old, new = (FeatureStore(path / NAME) for path in (folder, stores[1]))
        np.testing.assert_array_equal(old.gather(old.locate(table, task)), new.gather(new.locate(table, task)))


def damage(folder, *numbers):
    paths = [shards_of(folder)[number] for number in numbers]
    for path in paths:
        path.write_bytes(path.read_bytes()[:-7])
    return paths


def test_all_damaged_shards_are_named_and_how_to_go_on_without(eight):
    first, second = damage(eight, 4, 6)
    with pytest.raises(UserError, match="--force") as caught:
        loader(eight)
    message = str(caught.value)
    assert first.name in message
    assert second.name in message
    assert "leave_out" in message


def test_damaged_shards_are_left_out_and_no_item_changes_sides(eight, stores, caplog):
    whole = loader(stores[8])
    damaged = damage(eight, 4, 6)
    damaged[1].unlink()
    caplog.clear()
    rest = loader(eight, damaged_shards="leave_out")
    warnings = [record.message for record in caplog.records if "left out" in record.message]
    lost = set()
    index = whole.dataset.store.locate(whole.dataset.table, 1)
    for path, warning in zip(damaged, warnings, strict=True):
        items = np.flatnonzero(index[:, 0] == whole.dataset.store.shard_names.index(path.name))
        assert str(path) in warning
        assert f"with it {len(items)} items" in warning
        lost |= {*items.tolist()}
    assert lost
    for side in ("train_indices", "valid_indices"):
        assert set(getattr(rest, side)) == set(getattr(whole, side)) - lost
    drawn = [index for batch in rest for index in batch.index.tolist()]
    assert sorted(drawn) == sorted(rest.train_indices.tolist())
    assert not lost & set(drawn)


def test_with_all_shards_damaged_nothing_is_left_to_train_on(eight):
    damage(eight, *range(8))
    with pytest.raises(UserError, match="all items to train on or to score are in damaged shards"):
        loader(eight, damaged_shards="leave_out")


def test_a_shard_that_is_wanted_by_no_item_may_be_damaged(eight):
    damage(eight, 0)
    assert len(loader(eight, task=2, level=1))
