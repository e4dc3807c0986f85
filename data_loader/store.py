"""The feature store: memory-mapped .npy shards, index.csv, index.npy and meta.json in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import torch

from data_loader.audio import MAX_RATE, MIN_RATE
from data_loader.encoding import decode
from data_loader.mapped_shards import MappedShards
from data_loader.store_index import StoreIndex
from logger.log import get_logger
from utils.arguments import matches
from utils.errors import UserError
from utils.strict_json import read_json

logger = get_logger(__name__)

STORE_VERSION = 2
DTYPES = ("uint8", "float16")
# In the place of a shard's number: the store has no such item, or its shard is damaged and left out.
ABSENT, LOST = -1, -2


@dataclass(frozen=True)
class StoreMeta:
    """How the features of a store were made.

    Attributes:
        method: the feature method.
        params: every parameter of the method.
        shape: the shape of one item as a model gets it.
        dtype: of the shards: uint8 (value / 255) for features in [0, 1], float16 otherwise.
        repeats: the first axis of `shape` repeats the stored channel this many times.
        sources: for each task, a digest of the audio files and cuts that the features were made from.
        items: for each task, the number of items.
        limit: the preprocess run's --limit, if it had one.
        weights: a digest of the network's weights, for methods that use one.
        versions: the versions of the libraries that computed the features.
        shards: for each shard, the number of its rows; index.npy counts them in this order. Empty while it is made.
        rate: samples a second of the audio that the features were computed from, that of the first recording; others
            were brought to it. None for a method with a rate of its own, and in stores of earlier versions.
        digests: items are found by their audio, too: features of other audio are not taken for theirs.
    """

    method: str
    params: dict[str, Any]
    shape: list[int]
    dtype: str
    repeats: int
    sources: dict[str, str]
    items: dict[str, int]
    limit: int | None = None
    weights: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    rate: int | None = None
    digests: bool = False
    version: int = STORE_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_meta(folder: Path) -> StoreMeta:
    """Read a store's meta.json.

    Raises:
        UserError: there is no store, or its description is damaged or of another version.
    """
    path = folder / "meta.json"
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:
        raise UserError(folder, f"cannot be a folder's name: {error}") from error
    if not there:
        raise UserError(folder, "there is no feature store", f"run: {preprocess_command(folder)}")
    remake = f"make it anew: {preprocess_command(folder)} --force"
    try:
        content = read_json(path)
        version = content.get("version") if isinstance(content, dict) else None
        if version is not None and version != STORE_VERSION:
            raise UserError(path, f"is of version {version}, this is {STORE_VERSION}", remake)
        meta = StoreMeta(**content)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(path, f"is not the description of a store: {error}", remake) from error
    hints = get_type_hints(StoreMeta)
    if wrong := [name for name, value in content.items() if not matches(value, hints[name])]:
        raise UserError(path, f"{wrong[0]} is {content[wrong[0]]!r}", remake)
    if not meta.shape or min(*meta.shape, meta.repeats) < 1 or meta.dtype not in DTYPES:
        raise UserError(path, f"describes {meta.dtype} items of the shape {meta.shape}", remake)
    if meta.rate is not None and not MIN_RATE <= meta.rate <= MAX_RATE:
        raise UserError(path, f"describes features of {meta.rate} samples a second", remake)
    if meta.weights is not None and "weights" not in meta.params:
        raise UserError(path, f"names the weights {meta.weights!r} of features that are of no network", remake)
    if not meta.shards or min(meta.shards.values()) < 1 or sum(meta.shards.values()) != sum(meta.items.values()):
        rows, items = sum(meta.shards.values()), sum(meta.items.values())
        raise UserError(path, f"lists shards of {rows} rows for {items} items", remake)
    if strange := [name for name in meta.shards if Path(name).name != name] + sorted(meta.items.keys() - {"1", "2"}):
        raise UserError(path, f"lists {strange[0]!r}, which is neither a shard nor a task", remake)
    return meta


def preprocess_command(folder: Path) -> str:
    """The command that makes a store, for a message."""
    return f"python preprocess.py --data-dir {folder.parent} --method {folder.name.removeprefix('processed_')}"


class FeatureStore:
    """Read access to a complete store. Opening it takes the same time and memory whatever its size.

    Args:
        folder: ``<data_dir>/processed_<method>``.

    Raises:
        UserError: there is no store, or its description or index is damaged. Shards are looked at by `locate`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = read_meta(folder)
        remake = f"make it anew: {preprocess_command(folder)} --force"
        self.shard_names = list(self.meta.shards)
        self._index = StoreIndex(folder, self.meta.shards, remake, self.meta.digests)
        channels, *others = self.meta.shape
        stored_shape = (channels // self.meta.repeats, *others)
        self._shards = MappedShards(folder, self.meta.shards, stored_shape, self.meta.dtype, remake)

    def __getstate__(self) -> dict[str, Any]:
        # Where loader workers are spawned, not forked, each opens the shards itself: pickled they would be copied.
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def locate(self, table: pd.DataFrame, task: int, leave_out_damaged: bool = False) -> np.ndarray:
        """Where the items of a table are: ``(items, 2)`` int64, number of the shard and row in it.

        Args:
            leave_out_damaged: warn of each shard that is damaged or not there; its items are at `LOST`.

        Returns:
            The places; an item that the store does not have is at `ABSENT`.

        Raises:
            UserError: shards that they are in are damaged or not there (names them), or the index names a place that
                is not there.
        """
        places = self._index.find(table, task)
        damaged = self._shards.damaged(np.unique(places[places[:, 0] >= 0, 0]))
        if damaged and not leave_out_damaged:
            raise _of_all(damaged)
        for number, error in damaged.items():
            its_items = places[:, 0] == number
            logger.warning("%s: %s: left out, and with it %d items", error.subject, error.what, its_items.sum())
            places[its_items] = LOST
        return places

    def gather(self, places: np.ndarray) -> np.ndarray:
        """Copy the items at ``(batch, 2)`` places (see `locate`) out of the shards: ``(batch, ...)`` as stored."""
        return self._shards.gather(places[:, 0], places[:, 1])

    def marks(self, places: np.ndarray) -> np.ndarray:
        """``(batch, frames)`` as stored: where the span of each item is, of features whose last channel marks it."""
        return self._shards.marks(places[:, 0], places[:, 1])


def _of_all(damaged: Mapping[int, UserError]) -> UserError:
    """One error for all damaged shards: the first one's, with the names of the others."""
    first, *others = damaged.values()
    names = ", ".join(Path(str(error.subject)).name for error in others[:20]) + (", ..." if len(others) > 20 else "")
    what = f"{first.what}; {len(others)} more damaged: {names}" if others else first.what
    return UserError(first.subject, what, f'{first.hint}; "damaged_shards": "leave_out" goes on without')


def statistics(store: FeatureStore, places: np.ndarray, most: int = 512) -> tuple[float, float]:
    """Mean and standard deviation of the values of the items at `places` (evenly spaced ones, `most` of them)."""
    chosen = places[np.unique(np.linspace(0, len(places) - 1, min(most, len(places))).astype(int))]
    total = squares = 0.0
    count = 0
    for start in range(0, len(chosen), 32):
        values = decode(torch.from_numpy(store.gather(chosen[start : start + 32]))).double()
        total += float(values.sum())
        squares += float(values.square().sum())
        count += values.numel()
    mean = total / count
    return mean, max((squares / count - mean**2), 1e-12) ** 0.5


def source_digest(table: pd.DataFrame, task: int, digests: dict[str, str]) -> str:
    """A digest of what a task's features are made from: the audio files' bytes and where they are cut."""
    columns: Sequence[str] = ("path", "start_ms", "end_ms") if task == 1 else ("path",)
    digest = hashlib.sha256()
    for row in table[list(columns)].itertuples(index=False):
        digest.update(f"{Path(row[0]).stem}|{digests[row[0]]}|{row[1:]}\n".encode())
    return digest.hexdigest()
