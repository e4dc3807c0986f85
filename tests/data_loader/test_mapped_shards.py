"""Rows of many files, gathered as if they were one array."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_loader.mapped_shards import MappedShards
from utils.errors import UserError

COUNTS = {"a.npy": 5, "b.npy": 1, "c.npy": 7}


def write(folder, counts, shape=(2, 3), dtype="float16"):
    """Files of random rows, and all their rows in one array with where each one is."""
    generator = np.random.default_rng(0)
    arrays = [(generator.random((count, *shape)) * 255).astype(dtype) for count in counts.values()]
    for name, array in zip(counts, arrays, strict=True):
        np.save(folder / name, array)
    places = np.array([(number, row) for number, array in enumerate(arrays) for row in range(len(array))])
    return np.concatenate(arrays), places


def mapped(folder, counts=COUNTS, shape=(2, 3), dtype="float16"):
    return MappedShards(folder, counts, shape, dtype, "make it anew")


# The second shape's rows lie across pages, and none begins with one.
@pytest.mark.parametrize("shape, dtype", [((2, 3), "float16"), ((1, 71, 67), "uint8"), ((3, 5000), "float16")])
def test_rows_of_any_files_in_any_order(tmp_path, shape, dtype):
    rows, places = write(tmp_path, COUNTS, shape, dtype)
    shards = mapped(tmp_path, COUNTS, shape, dtype)
    generator = np.random.default_rng(1)
    for chosen in ([3], [12, 0, 5, 5, 1], np.arange(13), generator.integers(13, size=100), np.arange(0)):
        found = shards.gather(*places[chosen].T)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, rows[chosen])


def test_a_batch_may_be_changed_and_the_files_stay(tmp_path):
    rows, places = write(tmp_path, COUNTS)
    shards = mapped(tmp_path)
    shards.gather(*places.T)[:] = 0
    np.testing.assert_array_equal(shards.gather(*places.T), rows)


def test_more_files_than_a_process_may_have_open(tmp_path):
    counts = {f"{number}.npy": 1 for number in range(300)}
    rows, places = write(tmp_path, counts)
    shards = mapped(tmp_path, counts)
    before = len(list(Path("/proc/self/fd").iterdir()))
    np.testing.assert_array_equal(shards.gather(*places.T), rows)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_nothing_stays_mapped_of_a_store_that_is_gone(tmp_path):
    _, places = write(tmp_path, COUNTS)
    shards = mapped(tmp_path)
    shards.gather(*places.T)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    del shards
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("fits", [True, False])
def test_rows_are_announced_to_the_disk_unless_they_are_in_memory(tmp_path, monkeypatch, fits):
    rows, places = write(tmp_path, COUNTS)
    if not fits:
        monkeypatch.setattr(os, "sysconf", lambda name: 1)
    shards = mapped(tmp_path)
    announced = []
    announce = shards._announce
    monkeypatch.setattr(shards, "_announce", lambda *where: announced.append(len(where[0])) or announce(*where))
    for chosen in ([0, 1], [1, 2], [0, 2]):
        np.testing.assert_array_equal(shards.gather(*places[chosen].T), rows[chosen])
    assert announced == ([2, 1] if fits else [2, 2, 2])


def shorter(path):
    path.write_bytes(path.read_bytes()[:-1])


def longer(path):
    path.write_bytes(path.read_bytes() + b"\0")


def replaced(array):
    return lambda path: np.save(path, array)


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(b"\0 rubbish" * 100),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "shorter": shorter,
    "longer": longer,
    "fewer rows": replaced(np.zeros((4, 2, 3), "float16")),
    "another shape": replaced(np.zeros((5, 3, 2), "float16")),
    "another dtype": replaced(np.zeros((5, 2, 3), "uint16")),
    "another order": replaced(np.asfortranarray(np.zeros((5, 2, 3), "float16"))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named_when_it_is_opened(tmp_path, damage):
    _, places = write(tmp_path, COUNTS)
    damage(tmp_path / "a.npy")
    shards = mapped(tmp_path)
    shards.open(np.array([1, 2]))
    with pytest.raises(UserError, match=r"a\.npy: .*make it anew"):
        shards.open(np.arange(3))
    with pytest.raises(UserError, match=r"a\.npy"):
        shards.gather(*places.T)


def test_more_than_there_are_addresses_for_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot be mapped into memory"):
        mapped(tmp_path, {"a.npy": 10**15})
