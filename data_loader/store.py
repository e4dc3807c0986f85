"""The feature store: memory-mapped .npy shards, index.csv and meta.json in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.arguments import matches
from utils.errors import UserError

STORE_VERSION = 1
INDEX_COLUMNS = ["task", "wav_name", "event_id", "start_ms", "end_ms", "shard", "row"]
DTYPES = ("uint8", "float16")


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
    version: int = STORE_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def encode(features: Tensor, unit_range: bool, repeats: int) -> np.ndarray:
    """Features ``(batch, ...)`` float32 as the store keeps them: uint8 for values in [0, 1], else float16."""
    if repeats > 1:
        features = features[:, :1]
    if unit_range:
        return features.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
    largest = torch.finfo(torch.float16).max
    return features.clamp(-largest, largest).to(torch.float16).cpu().numpy()


def decode(stored: Tensor, repeats: int = 1) -> Tensor:
    """Features ``(batch, ...)`` float32 from what `encode` made, on the device of `stored`."""
    features = stored.float().div_(255.0) if stored.dtype == torch.uint8 else stored.float()
    return features.expand(-1, repeats, *features.shape[2:]) if repeats > 1 else features


def read_meta(folder: Path) -> StoreMeta:
    """Read a store's meta.json.

    Raises:
        UserError: there is no store, or its description is damaged or of another version.
    """
    path = folder / "meta.json"
    if not path.is_file():
        raise UserError(folder, "there is no feature store", f"run: {preprocess_command(folder)}")
    remake = f"make it anew: {preprocess_command(folder)} --force"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        meta = StoreMeta(**content)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(path, f"is not the description of a store: {error}", remake) from error
    if meta.version != STORE_VERSION:
        raise UserError(path, f"is of version {meta.version}, this is {STORE_VERSION}", remake)
    hints = get_type_hints(StoreMeta)
    if wrong := [name for name, value in content.items() if not matches(value, hints[name])]:
        raise UserError(path, f"{wrong[0]} is {content[wrong[0]]!r}", remake)
    if not meta.shape or min(*meta.shape, meta.repeats) < 1 or meta.dtype not in DTYPES:
        raise UserError(path, f"describes {meta.dtype} items of the shape {meta.shape}", remake)
    return meta


def preprocess_command(folder: Path) -> str:
    """The command that makes a store, for a message."""
    return f"python preprocess.py --data-dir {folder.parent} --method {folder.name.removeprefix('processed_')}"


class FeatureStore:
    """Read access to a complete store.

    Args:
        folder: ``<data_dir>/processed_<method>``.

    Raises:
        UserError: there is no store, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = read_meta(folder)
        self._remake = f"make it anew: {preprocess_command(folder)} --force"
        try:
            self.index = pd.read_csv(folder / "index.csv", dtype={"wav_name": str, "shard": str})
        except (OSError, ValueError) as error:
            raise UserError(folder / "index.csv", f"is not a readable index: {error}", self._remake) from error
        if missing := [column for column in INDEX_COLUMNS if column not in self.index.columns]:
            raise UserError(folder / "index.csv", f"lacks the columns {', '.join(missing)}", self._remake)
        numbers = self.index[["task", "start_ms", "end_ms", "row"]]
        if not all(kind.kind == "i" for kind in numbers.dtypes) or self.index[["wav_name", "shard"]].isna().any(
            axis=None
        ):
            raise UserError(folder / "index.csv", "is not a list of items", self._remake)
        self.shard_names = sorted(set(self.index["shard"]))
        self._shards = [self._open(name) for name in self.shard_names]

    def _open(self, name: str) -> np.ndarray:
        path = self.folder / Path(name).name
        stored_shape = list(self.meta.shape)
        stored_shape[0] //= self.meta.repeats
        try:
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(path, f"is not a readable shard: {error}", self._remake) from error
        numbers = np.sort(self.index.loc[self.index["shard"] == name, "row"])
        if not np.array_equal(numbers, np.arange(len(numbers))):
            raise UserError(self.folder / "index.csv", f"lists other rows of {name} than 0, 1, 2, ...", self._remake)
        rows = len(numbers)
        if shard.shape != (rows, *stored_shape) or shard.dtype != self.meta.dtype:
            raise UserError(path, f"holds {shard.dtype}{shard.shape}, not what the index says", self._remake)
        return shard

    def __getstate__(self) -> dict[str, Any]:
        # Where loader workers are spawned, not forked, each opens the shards itself: pickled they would be copied.
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def locate(self, table: pd.DataFrame, task: int) -> np.ndarray:
        """Where the items of a table are: ``(items, 2)`` int64, number of the shard and row in it; -1 if absent."""
        keys = ["wav_name", "start_ms", "end_ms"] if task == 1 else ["wav_name"]
        index = self.index.loc[self.index["task"] == task, [*keys, "shard", "row"]]
        number = {name: position for position, name in enumerate(self.shard_names)}
        index = index.assign(shard=index["shard"].map(number)).drop_duplicates(keys)
        found = table[keys].merge(index, on=keys, how="left", validate="many_to_one")
        return found[["shard", "row"]].fillna(-1).to_numpy(dtype=np.int64)

    def gather(self, places: np.ndarray) -> np.ndarray:
        """Copy the items at ``(batch, 2)`` places (see `locate`) out of the shards: ``(batch, ...)`` as stored."""
        first = self._shards[0]
        result = np.empty((len(places), *first.shape[1:]), dtype=first.dtype)
        for shard in np.unique(places[:, 0]):
            mine = np.flatnonzero(places[:, 0] == shard)
            # Rows in ascending order read the file forwards.
            mine = mine[np.argsort(places[mine, 1], kind="stable")]
            result[mine] = self._shards[shard][places[mine, 1]]
        return result


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
