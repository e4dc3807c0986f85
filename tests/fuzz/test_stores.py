"""Damaged feature stores."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

from data_loader.dataset import RespDataset
from data_loader.extract import extract
from data_loader.features import methods
from data_loader.tables import build_tables
from tests.fuzz.harness import answer, damaged, edited, edits, fuzz, values
from utils.errors import UserError

PARAMS = {"n_mels": 8, "duration": 0.1}
NAME = "processed_mel"


@pytest.fixture(scope="module")
def tables(tiny_data):
    return build_tables(tiny_data)


def make(data_dir, tables, tasks=(1, 2)):
    feature = methods["mel"]
    return extract(
        data_dir, feature, feature.checked(PARAMS, "mel"), {task: tables.of(task) for task in tasks}, tables.digests
    )


@pytest.fixture(scope="module")
def whole(tiny_data, tables, tmp_path_factory):
    """A data folder with a store of small items; the audio is linked."""
    folder = tmp_path_factory.mktemp("store")
    for table in tiny_data.glob("*.csv"):
        shutil.copy(table, folder)
    (folder / "BioCAS2022").symlink_to(tiny_data / "BioCAS2022")
    make(folder, tables)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "data", symlinks=True))


def refused(folder: Path, tables) -> bool:
    """Whether the store is refused, when it is read and when preprocessing comes to it again."""
    result = False
    for task in (1, 2):
        dataset = answer(lambda task=task: RespDataset(folder, task, 2, NAME), folder)
        if isinstance(dataset, UserError):
            result = True
            continue
        items = answer(lambda dataset=dataset: dataset.__getitems__(list(range(len(dataset)))), folder)
        if isinstance(items, UserError):
            result = True
            continue
        assert items.data.shape == (len(dataset), *dataset.store.meta.shape)
    before = {path.name: path.read_bytes() for path in (folder / NAME).iterdir()}
    again = answer(lambda: make(folder, tables), folder)
    assert isinstance(again, UserError) or again[1] == 0
    assert {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == before
    assert not (folder / f"{NAME}.partial").exists()
    return result


@pytest.mark.parametrize("kind", ["meta.json", "index.npy", "index.csv", "task1-", "task2-"])
def test_a_store_with_a_damaged_file_is_read_or_refused(folder, tables, kind):
    path = next(path for path in sorted((folder / NAME).iterdir()) if path.name.startswith(kind))
    content = path.read_bytes()

    def check(data):
        path.write_bytes(data)
        return refused(folder, tables)

    fuzz("store", 25, damaged(content, header=160), check)


def test_a_description_may_say_anything(folder, tables):
    path = folder / NAME / "meta.json"
    meta = json.loads(path.read_text())
    large = st.sampled_from(
        [10**6, 10**12, 2**62, [1, 10**9, 10**9], [2**62, 2], {"../../x.npy": 138}, {"/dev/zero": 138}]
    )

    def check(changes):
        path.write_text(json.dumps(edited(meta, changes)))
        return refused(folder, tables)

    fuzz("store", 60, edits(meta, st.one_of(values, large)), check)


class _Object:
    """Would make a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_arrays_of_another_kind_are_refused_and_nothing_is_unpickled(folder, tables, tmp_path):
    target = tmp_path / "ran"
    paths = [folder / NAME / "index.npy", *sorted((folder / NAME).glob("task*.npy"))]
    contents = {path: path.read_bytes() for path in paths}
    dtypes = st.sampled_from(
        ["<f2", ">f2", "u1", "<f8", "<U10", "M8[s]", "c16", "<u8", "i1", "O", "V8", [("a", "<i4")]]
    )
    axes = st.lists(st.sampled_from([0, 1, 2, 3, 8, 11, 138, 10**6]), max_size=4)

    def check(drawn):
        path, dtype, shape, fortran = drawn
        for other, content in contents.items():
            other.write_bytes(content)
        out = io.BytesIO()
        if dtype == "O":
            np.save(out, np.array([_Object(target)], dtype=object), allow_pickle=True)
        else:
            header = {"descr": dtype, "fortran_order": fortran, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(out, header)
            out.write(bytes(64))
        path.write_bytes(out.getvalue())
        assert refused(folder, tables)
        assert not target.exists()
        return True

    fuzz("store", 40, st.tuples(st.sampled_from(paths), dtypes, axes, st.booleans()), check)


def test_an_index_that_points_anywhere_gives_no_other_items(folder, tables):
    path = folder / NAME / "index.npy"
    index = np.load(path)
    number = st.one_of(st.sampled_from([0, 1, 2, 137, 138, 2**31, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
    changes = st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, index.shape[1] - 1), number), min_size=1, max_size=3
    )

    def check(drawn):
        changed = index.copy()
        for row, column, value in drawn:
            changed[row, column] = value
        np.save(path, changed)
        return refused(folder, tables)

    fuzz("store", 30, changes, check)


def test_damaged_lists_are_not_taken_over_when_a_task_is_added(whole, tables, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for entry in whole.iterdir():
        if entry.name != NAME:
            (folder / entry.name).symlink_to(entry)
    make(folder, tables, tasks=(2,))
    names = ["index.csv", "meta.json"]
    contents = {path.name: path.read_bytes() for path in (folder / NAME).iterdir()}
    strategy = st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), damaged(contents[name], header=120))
    )

    def check(drawn):
        name, data = drawn
        shutil.rmtree(folder / NAME)
        (folder / NAME).mkdir()
        for other, content in contents.items():
            (folder / NAME / other).write_bytes(data if other == name else content)
        before = {path.name for path in folder.iterdir()}
        result = answer(lambda: make(folder, tables), folder)
        assert {path.name for path in folder.iterdir()} == before
        if isinstance(result, UserError):
            assert {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == contents | {name: data}
            return True
        index = pd.read_csv(folder / NAME / "index.csv")
        assert len(index) == len(tables.of(1)) + len(tables.of(2))
        for task in (1, 2):
            RespDataset(folder, task, 2, NAME)
        return False

    fuzz("store", 15, strategy, check)
