"""Batches of waveforms of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

_MAX_BATCH_SECONDS = 320.0


def similar_batches(
    waveforms: Sequence[tuple[np.ndarray, int]], batch_size: int
) -> Iterator[tuple[list[int], Tensor, Tensor, int]]:
    """Batches of one rate and of similar length, so that little of a batch is padding.

    Args:
        waveforms: samples ``(samples,)`` float32 and rate of each.
        batch_size: the most items in a batch; long ones come in smaller batches.

    Yields:
        rows of `waveforms`, the batch ``(items, samples)`` float32 padded with zeros, lengths ``(items,)`` int64 and
        the rate.
    """
    order = sorted(range(len(waveforms)), key=lambda row: (waveforms[row][1], len(waveforms[row][0])))
    rows: list[int] = []
    for row in order:
        samples, rate = waveforms[row]
        if rows:
            full = len(rows) >= batch_size or len(rows) * len(samples) / rate > _MAX_BATCH_SECONDS
            if full or waveforms[rows[0]][1] != rate:
                yield rows, *_padded([waveforms[r][0] for r in rows]), waveforms[rows[0]][1]
                rows = []
        rows.append(row)
    if rows:
        yield rows, *_padded([waveforms[r][0] for r in rows]), waveforms[rows[0]][1]


def _padded(waveforms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(samples) for samples in waveforms])
    batch = torch.zeros(len(waveforms), int(lengths.max()))
    for position, samples in enumerate(waveforms):
        batch[position, : len(samples)] = torch.from_numpy(samples)
    return batch, lengths
