"""Batches, and what goes together in one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

# On a GPU, seconds of audio at once: what bounds its memory.
GPU_BATCH_SECONDS = 320.0
# Numbers of a resampling filter, which grows with the terms of the reduced ratio of two rates: 64 MB. Every rate of
# which `refuse_header` lets a file pass is within it against 16 kHz; 8000 to 44101 Hz would take 1.4 GB.
_MOST_FILTER = 16_000_000
# The target of a frame of which nothing is known; any negative one says so.
UNKNOWN = -1.0


class Batch(NamedTuple):
    """One batch.

    Attributes:
        data: ``(batch, ...)`` features as stored (uint8 or float16), or waveforms ``(batch, samples)`` float32, of
            several channels ``(batch, channels, samples)``.
        target: ``(batch,)`` int64 class indices.
        index: ``(batch,)`` int64 item numbers in the data set.
        lengths: ``(batch,)`` int64 samples that count in each waveform; None for features.
        details: what else is known of the items, see the loader's `details`: "fine", ``(batch,)`` int64 indices of
            finer classes; "frames", ``(batch, frames, k)`` float32, negative where nothing is known; None, nothing.
    """

    data: Tensor
    target: Tensor
    index: Tensor
    lengths: Tensor | None = None
    details: Tensor | None = None


def to_rate(samples: np.ndarray, rate: int, new_rate: int, duration: float | None) -> Tensor:
    """A waveform ``([channels,] samples)`` at another rate, cut to at most `duration` seconds.

    Raises:
        UserError: see `refuse_rates`.
    """
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    if rate != new_rate:
        refuse_rates(rate, new_rate)
        from torchaudio.functional import resample

        waveform = resample(waveform, rate, new_rate)
    return waveform[..., : round(duration * new_rate)] if duration else waveform


def refuse_rates(rate: int, new_rate: int) -> None:
    """Refuse to bring audio to another rate where that would take much memory.

    Raises:
        UserError: the rates have too little in common.
    """
    divisor = math.gcd(rate, new_rate)
    if (rate // divisor) * (new_rate // divisor) > _MOST_FILTER:
        what = f"is {new_rate}, to which audio at {rate} Hz cannot be brought: they have too little in common"
        raise UserError("data_loader.args.rate", what, "take a usual rate, as 8000, 16000, 22050 or 44100")


def collate_resp(
    samples: Batch | list[tuple[Any, ...]] | UserError, samples_at_least: int = 0, channels: int = 1
) -> Batch | UserError:
    """The collate_fn of the loaders of sounds.

    An item is its input, its class index, its number and, where there are any, its details: an index, or frames
    ``(frames, k)``; those of different lengths are filled up with frames of which nothing is known.

    A batch that the store gathered is passed on, as is an error. Waveforms of different lengths are padded with zeros
    to the longest, or to `samples_at_least` samples; with more than one of `channels`, all items are waveforms.
    """
    if isinstance(samples, (Batch, UserError)):
        return samples
    inputs, targets, indices, *details = zip(*samples, strict=True)
    target, index = torch.tensor(targets), torch.tensor(indices)
    known = _collated_details(details[0]) if details else None
    # A feature may have one axis as a waveform has; it is not stored in single precision.
    if channels == 1 and (inputs[0].ndim > 1 or inputs[0].dtype != torch.float32):
        return Batch(torch.stack(inputs), target, index, details=known)
    lengths = torch.tensor([waveform.shape[-1] for waveform in inputs])
    data = torch.zeros(len(inputs), *inputs[0].shape[:-1], max(int(lengths.max()), samples_at_least))
    for row, waveform in enumerate(inputs):
        data[row, ..., : waveform.shape[-1]] = waveform
    return Batch(data, target, index, lengths, known)


def _collated_details(details: Sequence[int | Tensor]) -> Tensor:
    if not isinstance(details[0], Tensor) or not details[0].ndim:
        return torch.tensor([int(value) for value in details])
    return torch.nn.utils.rnn.pad_sequence(list(details), batch_first=True, padding_value=UNKNOWN)


def similar_batches(
    waveforms: Sequence[tuple[np.ndarray, int]], batch_size: int, batch_seconds: float = GPU_BATCH_SECONDS
) -> Iterator[tuple[list[int], Tensor, Tensor, int]]:
    """Batches of one rate and of similar length, so that little of a batch is padding.

    Args:
        waveforms: samples ``(samples,)`` float32 and rate of each.
        batch_size: the most items in a batch.
        batch_seconds: the most seconds in a batch, padding included; a longer item comes alone.

    Yields:
        rows of `waveforms`, the batch ``(items, samples)`` float32 padded with zeros, lengths ``(items,)`` int64 and
        the rate.
    """
    for rate in sorted({rate for _, rate in waveforms}):
        same_rate = [row for row, (_, its_rate) in enumerate(waveforms) if its_rate == rate]
        lengths = [len(waveforms[row][0]) for row in same_rate]
        for part in similar_rows(lengths, batch_size, batch_seconds * rate):
            rows = [same_rate[number] for number in part]
            yield rows, *_padded([waveforms[row][0] for row in rows]), rate


def similar_rows(lengths: Sequence[int], most_rows: int, most_samples: float) -> Iterator[list[int]]:
    """Rows of similar length together, in ascending order of it.

    Args:
        lengths: of each row, in samples.
        most_rows: the most rows together.
        most_samples: the most samples together, padding to the longest included; a longer row comes alone.
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) >= most_rows or (len(rows) + 1) * lengths[row] > most_samples):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _padded(waveforms: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(samples) for samples in waveforms])
    batch = torch.zeros(len(waveforms), int(lengths.max()))
    for position, samples in enumerate(waveforms):
        batch[position, : len(samples)] = torch.from_numpy(samples)
    return batch, lengths
