"""Which item of a feature store is where: index.csv for people, index.npy for the program.

index.csv has one item a row and opens in anything. Reading it takes time and memory with the number of items, so the
program uses index.npy: ``(3, items)`` uint64, memory-mapped, a column an item. Its rows are a key made from what names
the item and its audio (sorted), the number of its shard in meta.json, and the row in that shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_loader.mapped_shards import open_npy
from utils.errors import UserError
from utils.files import atomic_write_npy, atomic_write_text

INDEX_COLUMNS = ["task", "wav_name", "event_id", "start_ms", "end_ms", "shard", "row"]
# Of the bytes of an item's audio file, as in the tables; not in stores of earlier versions.
DIGEST = "digest"
CSV, NPY = "index.csv", "index.npy"


def item_keys(table: pd.DataFrame) -> np.ndarray:
    """``(rows,)`` uint64, a hash of wav_name, start_ms, end_ms and digest, if there is one; no times count as -1.

    The hash is pandas' (SipHash, the same on every machine). Two of a million items share one with probability 3e-8.
    """
    parts = pd.DataFrame({"wav_name": table["wav_name"].to_numpy(object)})
    for column in ("start_ms", "end_ms"):
        parts[column] = np.asarray(table.get(column, -1), np.int64)
    if DIGEST in table:
        parts[DIGEST] = table[DIGEST].to_numpy(object)
    return pd.util.hash_pandas_object(parts, index=False).to_numpy()


def write_index(folder: Path, index: pd.DataFrame, shards: Mapping[str, int]) -> None:
    """Write both files.

    Args:
        folder: of the store.
        index: one item a row, the columns `INDEX_COLUMNS` and, but for a store of an earlier version, `DIGEST`; for
            recordings (task 2) the times are -1.
        shards: the store's, in their order, see `StoreMeta`.
    """
    atomic_write_text(folder / CSV, index.to_csv(index=False, lineterminator="\n"))
    atomic_write_npy(folder / NPY, _places(index, shards))


def _places(index: pd.DataFrame, shards: Mapping[str, int]) -> np.ndarray:
    """What index.npy holds of an index.csv."""
    number = {name: position for position, name in enumerate(shards)}
    places = np.empty((3, len(index)), np.uint64)
    places[0] = item_keys(index)
    places[1] = index["shard"].map(number)
    places[2] = index["row"]
    # Of items listed twice (an event annotated twice) the first comes first.
    order = np.argsort(places[0], kind="stable")
    return np.take(places, order, axis=1)


def read_index(folder: Path, shards: Mapping[str, int]) -> pd.DataFrame:
    """Read a store's index.csv.

    Args:
        folder: of the store.
        shards: the store's, see `StoreMeta`.

    Raises:
        UserError: it is not there, or does not list the rows of these shards, or other items than index.npy.
    """
    path = folder / CSV
    remake = "--force makes the store anew"
    try:
        index = pd.read_csv(path, dtype={"wav_name": str, "shard": str, DIGEST: str})
    except (OSError, ValueError) as error:
        raise UserError(path, f"is not a readable index: {error}", remake) from error
    if missing := [column for column in INDEX_COLUMNS if column not in index.columns]:
        raise UserError(path, f"lacks the columns {', '.join(missing)}", remake)
    numbers = index[["task", "event_id", "start_ms", "end_ms", "row"]]
    if not all(kind.kind == "i" for kind in numbers.dtypes) or index.isna().any(axis=None):
        raise UserError(path, "is not a list of items", remake)
    rows = index.groupby("shard")["row"].agg(["size", "nunique", "min", "max"])
    wrong = (rows["nunique"] != rows["size"]) | (rows["min"] != 0) | (rows["max"] != rows["size"] - 1)
    if wrong.any() or rows["size"].to_dict() != dict(shards):
        raise UserError(path, "lists other rows than the shards have", remake)
    # A name may have been changed by hand; what is taken over from here has to be what the store is read by.
    if not np.array_equal(_places(index, shards), StoreIndex(folder, shards, remake).places):
        raise UserError(path, f"lists other items than {NPY}", remake)
    return index


class StoreIndex:
    """index.npy, opened in constant time.

    Attributes:
        places: ``(3, items)`` uint64, the file's content.

    Args:
        folder: of the store.
        shards: names and rows of its shards, see `StoreMeta`.
        remake: what to do about a damaged index.
        digests: its keys have the digests of the audio in them, see `StoreMeta`.

    Raises:
        UserError: it is not there, or not of these shards.
    """

    def __init__(self, folder: Path, shards: Mapping[str, int], remake: str, digests: bool = False) -> None:
        self._path, self._remake, self._digests = folder / NPY, remake, digests
        self._counts = np.array(list(shards.values()), np.uint64)
        shape = (3, int(self._counts.sum()))
        with open_npy(self._path, shape, np.dtype(np.uint64), remake) as file:
            self.places = np.memmap(file, np.uint64, "r", file.tell(), shape)

    def find(self, table: pd.DataFrame, task: int) -> np.ndarray:
        """Where the items of a table are: ``(rows, 2)`` int64, number of the shard and row in it; -1 if absent.

        An item whose audio is not that of the store is absent; of tables of earlier versions that is not known.

        Raises:
            UserError: the index names a place that is not there.
        """
        keys, shards, rows = self.places
        named = ["wav_name", "start_ms", "end_ms"] if task == 1 else ["wav_name"]
        wanted = item_keys(table[[*named, DIGEST] if self._digests and DIGEST in table else named])
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        found = keys[at] == wanted
        at = at[found]
        shards, rows = shards[at], rows[at]
        if (shards >= len(self._counts)).any() or (rows >= self._counts[shards]).any():
            raise UserError(self._path, "names a place that no shard has", self._remake)
        places = np.full((len(table), 2), -1)
        places[found] = np.column_stack([shards, rows])
        return places
