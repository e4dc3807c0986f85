"""How the items of a feature store are shared out to jobs, and so to shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_loader.store_index import DIGEST, INDEX_COLUMNS
from utils.errors import UserError

# A job ends with the recording that brings one of its tasks to so many items.
SHARD_ITEMS = 512

Item = tuple[str, int, int]  # path relative to the data folder, start and end in ms (-1: to the end)


@dataclass(frozen=True)
class Job:
    """Some recordings with their events: what is decoded together.

    Attributes:
        shards: for each task, the file to write and its items in order.
    """

    shards: dict[str, list[Item]]

    @property
    def n_items(self) -> int:
        return sum(map(len, self.shards.values()))


def plan_jobs(tables: Mapping[int, pd.DataFrame], n_shards: int | None = None) -> tuple[list[Job], pd.DataFrame]:
    """Cut the recordings of some tasks' tables into jobs.

    A job has one shard a task, ``task<T>-<number>-of-<jobs>-<items>.npy``. A recording is in one job with all its
    tasks, so that it is decoded once.

    Args:
        n_shards: how many shards each task gets; None makes as many as `SHARD_ITEMS` gives.

    Returns:
        The jobs, and the store's index (see `write_index`): one row an item, by task, in the order of its table.

    Raises:
        UserError: fewer recordings than `n_shards` have items of all tasks.
    """
    recordings = pd.unique(np.concatenate([table["path"].to_numpy() for table in tables.values()]))
    counts = {task: table.groupby("path").size().reindex(recordings, fill_value=0) for task, table in tables.items()}
    items_of = np.stack([count.to_numpy() for count in counts.values()])
    numbers_of = _numbers(items_of) if n_shards is None else _equal_numbers(items_of, n_shards)
    number_of = pd.Series(numbers_of, index=recordings)
    n_jobs = int(numbers_of.max(initial=-1)) + 1
    shards: list[dict[str, list[Item]]] = [{} for _ in range(n_jobs)]
    index = []
    for task, table in tables.items():
        numbers = number_of.reindex(table["path"]).to_numpy()
        rows = np.bincount(numbers, minlength=n_jobs)
        names = np.array([f"task{task}-{n:05d}-of-{n_jobs:05d}-{rows[n]}.npy" for n in range(n_jobs)])
        starts, ends = (table["start_ms"], table["end_ms"]) if task == 1 else (np.full(len(table), n) for n in (0, -1))
        for number, item in zip(
            numbers, zip(table["path"], map(int, starts), map(int, ends), strict=True), strict=True
        ):
            shards[number].setdefault(names[number], []).append(item)
        part = pd.DataFrame({"task": task, "wav_name": table["wav_name"].to_numpy()})
        for column in ("event_id", "start_ms", "end_ms"):
            part[column] = table[column].to_numpy() if task == 1 else -1
        part["shard"] = names[numbers]
        part["row"] = part.groupby("shard").cumcount()
        index.append(part[INDEX_COLUMNS].assign(**{DIGEST: table[DIGEST].to_numpy()} if DIGEST in table else {}))
    return [Job(named) for named in shards], pd.concat(index, ignore_index=True)


def _numbers(counts: np.ndarray) -> np.ndarray:
    """For each recording the number of its job, of the items ``(tasks, recordings)`` that each has."""
    numbers = np.empty(counts.shape[1], dtype=np.int64)
    number, filled = 0, np.zeros(len(counts), dtype=np.int64)
    for recording, items in enumerate(counts.T):
        if (filled >= SHARD_ITEMS).any():
            number, filled = number + 1, np.zeros_like(filled)
        numbers[recording] = number
        filled = filled + items
    return numbers


def _equal_numbers(counts: np.ndarray, n_shards: int) -> np.ndarray:
    """The same for so many jobs of equally many recordings, in order; none lacks items of a task that has any."""
    counts = counts[counts.any(axis=1)]
    full = counts.all(axis=0)
    if n_shards > full.sum():
        what = f"is {n_shards}, but only {full.sum()} recordings have items for a shard of each task"
        raise UserError("--shards", what, "take fewer shards")
    numbers = np.empty(counts.shape[1], dtype=np.int64)
    for recordings in (full, ~full):
        n_recordings = int(recordings.sum())
        numbers[recordings] = np.arange(n_recordings) * n_shards // max(n_recordings, 1)
    return numbers
