"""Computing one shard of a feature store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.audio import cut_event, read_audio
from data_loader.batching import similar_batches
from data_loader.features import Feature, methods
from data_loader.store import encode
from utils.errors import UserError
from utils.files import atomic_path

# Waveforms in memory at a time: 256 MB. A shard of SPRSound's recordings is less than that.
MOST_SAMPLES = 64_000_000


@dataclass(frozen=True)
class Job:
    """One shard to compute: which items, and where they go."""

    task: int
    name: str
    items: list[tuple[str, int, int]]  # path relative to the data folder, start and end in ms (-1: to the end)


@dataclass(frozen=True)
class Recipe:
    """What a worker process needs to know to compute any shard."""

    data_dir: Path
    folder: Path
    method: str
    params: dict[str, Any]
    device: str


def compute_shard(job: Job, recipe: Recipe) -> Iterator[int]:
    """Compute and write one shard; yields how many items each batch had."""
    feature: Feature = methods[recipe.method]
    shard: np.ndarray | None = None
    for first, waveforms in _cut(job, recipe.data_dir):
        for rows, batch, lengths, rate in similar_batches(waveforms, feature.batch_size):
            rows = [first + row for row in rows]
            with torch.inference_mode():
                features = feature(batch.to(recipe.device), rate, lengths, **recipe.params)
            finite = features.flatten(1).isfinite().all(dim=1)
            if not finite.all():
                bad = job.items[rows[int((~finite).nonzero()[0, 0])]]
                raise UserError(recipe.data_dir / bad[0], f"its feature {recipe.method} is not finite")
            stored = encode(features, feature.unit_range, feature.repeats)
            if shard is None:
                shard = np.empty((len(job.items), *stored.shape[1:]), dtype=stored.dtype)
            if stored.shape[1:] != shard.shape[1:]:
                what = f"its feature {recipe.method} has the shape {stored.shape[1:]} at {rate} Hz, others have "
                raise UserError(recipe.data_dir / job.items[rows[0]][0], f"{what}{shard.shape[1:]}", "resample it")
            shard[rows] = stored
            yield len(rows)
    try:
        with atomic_path(recipe.folder / job.name) as path, path.open("wb") as file:
            np.save(file, shard, allow_pickle=False)
    except OSError as error:
        hint = "free some space and run again: finished shards are kept"
        raise UserError(recipe.folder / job.name, f"cannot be written: {error.strerror}", hint) from error


def _cut(job: Job, data_dir: Path) -> Iterator[tuple[int, list[tuple[np.ndarray, int]]]]:
    """The waveforms of a job's items with their rates, at most `MOST_SAMPLES` at a time, and the number of the first.

    A recording is decoded once for all its events.
    """
    waveforms: list[tuple[np.ndarray, int]] = []
    first = samples = 0
    path, recording, rate = None, np.zeros(0, np.float32), 0
    for number, (item_path, start_ms, end_ms) in enumerate(job.items):
        if item_path != path:
            recording, rate = read_audio(data_dir / item_path)
            path = item_path
        waveform = cut_event(recording, rate, start_ms, end_ms)
        if waveforms and samples + len(waveform) > MOST_SAMPLES:
            yield first, waveforms
            waveforms, first, samples = [], number, 0
        waveforms.append((waveform, rate))
        samples += len(waveform)
    yield first, waveforms
