"""Computing the shards of a feature store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_loader.audio import cut_event, read_audio
from data_loader.batching import GPU_BATCH_SECONDS, similar_batches, to_rate
from data_loader.encoding import encode
from data_loader.features import Feature, methods
from data_loader.jobs import Item, Job
from utils.errors import UserError
from utils.files import atomic_write_npy

# Recordings in memory at a time, for each worker: 8 MB, some 25 recordings of SPRSound.
MOST_SAMPLES = 2_000_000


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to know to compute any shard.

    Attributes:
        rate: that all recordings are brought to; None for a method that does so itself.
    """

    data_dir: Path
    folder: Path
    method: str
    params: dict[str, Any]
    device: str
    rate: int | None = None


@dataclass(frozen=True)
class _Cut:
    """An item's waveform, or its whole recording and the item's span of samples, and where its feature goes."""

    shard: str
    row: int
    path: str
    samples: np.ndarray
    rate: int
    span: tuple[int, int]


def compute_job(job: Job, recipe: Recipe) -> Iterator[int]:
    """Compute a job and write its shards; yields how many items each batch had.

    Raises:
        UserError: a file cannot be read or written, a feature is not finite or has another shape than those before.
    """
    feature: Feature = methods[recipe.method]
    seconds = feature.batch_seconds if recipe.device == "cpu" else GPU_BATCH_SECONDS
    shards: dict[str, np.ndarray] = {}
    for cuts in _cut(job, recipe, feature.in_context):
        waveforms = [(cut.samples, cut.rate) for cut in cuts]
        for rows, batch, lengths, rate in similar_batches(waveforms, feature.batch_size, seconds):
            items = [cuts[row] for row in rows]
            spans = torch.tensor([item.span for item in items])
            with torch.inference_mode():
                features = feature(batch.to(recipe.device), rate, lengths, spans, **recipe.params)
            # A sum is finite if all its terms are, and takes one pass.
            finite = features[:, : features.shape[1] // feature.repeats].flatten(1).sum(dim=1).isfinite()
            if not finite.all():
                bad = items[int((~finite).nonzero()[0, 0])]
                raise UserError(recipe.data_dir / bad.path, f"its feature {recipe.method} is not finite")
            for item, stored in zip(items, encode(features, feature.unit_range, feature.repeats), strict=True):
                if item.shard not in shards:
                    shards[item.shard] = np.empty((len(job.shards[item.shard]), *stored.shape), dtype=stored.dtype)
                shard = shards[item.shard]
                if stored.shape != shard.shape[1:]:
                    what = f"its feature {recipe.method} has the shape {stored.shape} at {rate} Hz, others have "
                    raise UserError(recipe.data_dir / item.path, f"{what}{shard.shape[1:]}", "resample it")
                shard[item.row] = stored
            yield len(items)
    for name, shard in shards.items():
        try:
            atomic_write_npy(recipe.folder / name, shard)
        except OSError as error:
            hint = "free some space and run again: finished shards are kept"
            raise UserError(recipe.folder / name, f"cannot be written: {error.strerror}", hint) from error


def _cut(job: Job, recipe: Recipe, whole: bool) -> Iterator[list[_Cut]]:
    """The waveforms of a job's items, those of some recordings at a time: at most `MOST_SAMPLES`, but at least one.

    Args:
        whole: give each item its whole recording.
    """
    items: dict[str, list[tuple[str, int, Item]]] = {}
    for shard, its_items in job.shards.items():
        for row, item in enumerate(its_items):
            items.setdefault(item[0], []).append((shard, row, item))
    cuts: list[_Cut] = []
    samples = 0
    for path, its_items in items.items():
        recording, rate = read_audio(recipe.data_dir / path)
        if recipe.rate is not None:
            recording, rate = to_rate(recording, rate, recipe.rate, None).numpy(), recipe.rate
        if cuts and samples + len(recording) > MOST_SAMPLES:
            yield cuts
            cuts, samples = [], 0
        samples += len(recording)
        for shard, row, (_, start_ms, end_ms) in its_items:
            samples_of_item, span = cut_event(recording, rate, start_ms, end_ms), (0, len(recording))
            if whole:
                start = round(start_ms * rate / 1000)
                samples_of_item, span = recording, (start, start + len(samples_of_item))
            cuts.append(_Cut(shard, row, path, samples_of_item, rate, span))
    yield cuts
