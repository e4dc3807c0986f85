"""Damaged task1.csv and task2.csv."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
from hypothesis import strategies as st

from data_loader.dataset import RespDataset
from data_loader.tables import TABLE_FILES, read_table
from tests.fuzz.harness import answer, damaged, fuzz
from utils.errors import UserError


@pytest.fixture
def folder(tiny_data, tmp_path):
    """The tables alone, and a link to the features and the audio."""
    for name in TABLE_FILES.values():
        shutil.copy(tiny_data / name, tmp_path)
    for name in ("processed_stft", "BioCAS2022"):
        (tmp_path / name).symlink_to(tiny_data / name)
    return tmp_path


def check(folder: Path, task: int, content: bytes) -> bool:
    """What a table says must be read, and its items found in the store and as waveforms, or be refused."""
    path = folder / TABLE_FILES[task]
    path.write_bytes(content)
    table = answer(lambda: read_table(folder, task), path)
    if isinstance(table, UserError):
        return True
    refused = False
    for input_dir in ("processed_stft", None):
        dataset = answer(lambda input_dir=input_dir: RespDataset(folder, task, 2, input_dir), folder)
        if isinstance(dataset, UserError):
            refused = True
            continue
        assert len(dataset.labels) == len(dataset) == len(dataset.patients)
        assert dataset.labels.min(initial=0) >= 0
        for index in range(0, len(dataset), 7):
            item = answer(lambda index=index, dataset=dataset: dataset[index], folder)
            refused = refused or isinstance(item, UserError)
    return refused


@pytest.mark.parametrize("task", [1, 2])
def test_damaged_tables_are_read_or_refused(folder, task):
    whole = (folder / TABLE_FILES[task]).read_bytes()
    fuzz("table", 100, damaged(whole, header=200), lambda content: check(folder, task, content))


ODD_CELLS = [
    "",
    " ",
    "nan",
    "-1",
    "0",
    "1.5",
    "1e400",
    "inf",
    "9" * 30,
    "9" * 5000,
    '"',
    "a,b",
    "a\nb",
    "=1+1",
    "NULL",
]
ODD_CELLS += [
    "../../etc/passwd",
    "/etc/passwd",
    "\0",
    "é",
    "True",
    "train",
    "Normal",
    "Wheeze",
    "x" * 20000,
    "-9223372036854775808",
]
ODD_CELLS += ["9223372036854775807", "2147483648", "1_000", "0x10", "１", "."]


@st.composite
def rewritten(draw: st.DrawFn, text: str) -> bytes:
    """A table with cells, columns and rows changed, written with another separator or encoding."""
    rows = [list(row) for row in csv.reader(io.StringIO(text))]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        kind = draw(
            st.sampled_from(["cell", "cell", "cell", "column", "swap", "longer", "shorter", "drop", "twice", "all"])
        )
        column = draw(st.integers(0, len(rows[0]) - 1))
        cell = draw(st.one_of(st.sampled_from(ODD_CELLS), st.text(max_size=6)))
        if kind == "cell" and column < len(rows[row]):
            rows[row][column] = cell
        elif kind == "all":
            for line in rows[1:]:
                line[column : column + 1] = [cell]
        elif kind == "column":
            for line in rows:
                del line[column : column + 1]
            if not rows[0]:
                break
        elif kind == "swap":
            for line in rows:
                line.reverse()
        elif kind == "longer":
            rows[row] += [cell] * draw(st.integers(1, 3))
        elif kind == "shorter":
            del rows[row][-1:]
        elif kind == "twice":
            rows.insert(row, list(rows[row]))
        elif len(rows) > 1:
            del rows[row]
    out = io.StringIO()
    separator = draw(st.sampled_from([","] * 8 + [";", "\t", "|"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(
        out, delimiter=separator, quoting=quoting, lineterminator=draw(st.sampled_from(["\n"] * 4 + ["\r\n", "\r"]))
    ).writerows(rows)
    return out.getvalue().encode(draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1"])), "replace")


@pytest.mark.parametrize("task", [1, 2])
def test_a_table_may_hold_any_cells(folder, task):
    text = (folder / TABLE_FILES[task]).read_text()
    fuzz("table", 150, rewritten(text), lambda content: check(folder, task, content))
