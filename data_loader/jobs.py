"""How the items of a feature store are shared out to jobs, and so to shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_loader.store_index import INDEX_COLUMNS

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


def plan_jobs(tables: Mapping[int, pd.DataFrame]) -> tuple[list[Job], pd.DataFrame]:
    """Cut the recordings of some tasks' tables into jobs.

    A job has one shard a task, ``task<T>-<number>-of-<jobs>.npy``. A recording is in one job with all its tasks, so
    that it is decoded once.

    Returns:
        The jobs, and the store's index (see `INDEX_COLUMNS`): one row an item, by task, in the order of its table.
    """
    recordings = pd.unique(np.concatenate([table["path"].to_numpy() for table in tables.values()]))
    counts = {task: table.groupby("path").size().reindex(recordings, fill_value=0) for task, table in tables.items()}
    number_of = pd.Series(_numbers(np.stack([count.to_numpy() for count in counts.values()])), index=recordings)
    n_jobs = int(number_of.iloc[-1]) + 1
    shards: list[dict[str, list[Item]]] = [{} for _ in range(n_jobs)]
    index = []
    for task, table in tables.items():
        numbers = number_of.reindex(table["path"]).to_numpy()
        names = np.array([f"task{task}-{number:05d}-of-{n_jobs:05d}.npy" for number in range(n_jobs)])
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
        index.append(part[INDEX_COLUMNS])
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
