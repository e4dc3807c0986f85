"""Augmentation of training batches, on the device of the batch.

Random numbers come from the device's default generator, in the training process: the number of loader workers does
not change them, and a checkpoint that keeps the generator's state continues them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from data_loader.batching import Batch
from data_loader.features.common import zero_behind
from utils.arguments import matches
from utils.errors import UserError, nearest

# Decibels whose factor is still a number in single precision; masks beyond which nothing would be left.
_RANGES = {"gain_db": (0, 200), "noise_db": (-200, 200), "time_masks": (0, 100), "freq_masks": (0, 100)}
_RANGES |= {"mixup_alpha": (0, 100), "level": (0, 1e6), "roll_bands": (0, 1000), "edge_jitter": (0, 1)}


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training batch; by default nothing.

    Attributes:
        gain_db: waveforms are made louder or softer by up to this many dB.
        noise_db: white noise this far below the waveform's own level (dB) is added; None adds none.
        shift: waveforms are moved in a circle by up to this share of their length.
        place: waveforms are cut or padded to the loader's duration at a random place; else, and in evaluation, from
            their start.
        time_masks, freq_masks: how many stretches of time and bands of frequency are masked with the item's mean
            (SpecAugment: Park et al., arXiv 1904.08779).
        time_width, freq_width: greatest width of a mask, as a share of the axis.
        time_axis, freq_axis: which axes of an item these are, counted from its end.
        level: deviation of what is added to all of an item's features, of features that mark a span.
        roll_bands: move them by at most so many bands, up or down.
        roll_time: move recordings, and what is known of their frames, in a circle by a random time.
        splice: this share of the recordings of a batch gets a stretch of another one, by the trainer: see `Splice`.
        edge_jitter: deviation of where the marked span begins and ends, as a share of its length.
        mixup: this share of the batches is mixed, by the trainer: see `Mixup`.
        mixup_alpha: the shares of two mixed items are drawn from a Beta distribution of this parameter twice.
    """

    gain_db: float = 0.0
    noise_db: float | None = None
    shift: float = 0.0
    place: bool = False
    time_masks: int = 0
    time_width: float = 0.1
    freq_masks: int = 0
    freq_width: float = 0.1
    time_axis: int = -1
    freq_axis: int = -2
    level: float = 0.0
    roll_bands: int = 0
    roll_time: bool = False
    splice: float = 0.0
    edge_jitter: float = 0.0
    mixup: float = 0.0
    mixup_alpha: float = 0.2

    @classmethod
    def from_config(cls, values: dict[str, Any] | None, where: str = "data_loader.args.augment") -> Augmentation:
        """Check and take what a config says.

        Raises:
            UserError: an unknown key, or a value that is not a number or out of range.
        """
        values = values or {}
        known = {field.name for field in fields(cls)}
        for key, value in values.items():
            if key not in known:
                raise UserError(f"{where}.{key}", "is unknown", nearest(key, known))
            if key in ("place", "roll_time"):
                if not isinstance(value, bool):
                    raise UserError(f"{where}.{key}", f"is {value!r}", "expected true or false")
            elif not matches(value, float | None if key == "noise_db" else float):
                raise UserError(f"{where}.{key}", f"is {value!r}, not a number")
        for key in ("shift", "time_width", "freq_width", "mixup", "splice"):
            if not 0 <= values.get(key, 0) <= 1:
                raise UserError(f"{where}.{key}", f"is {values[key]}", "a share lies between 0 and 1")
        for key in ("time_masks", "freq_masks", "time_axis", "freq_axis", "roll_bands"):
            if not isinstance(values.get(key, 0), int):
                raise UserError(f"{where}.{key}", f"is {values[key]!r}, not a whole number")
        for key, (least, most) in _RANGES.items():
            value = values.get(key) or 0
            if not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise UserError(f"{where}.{key}", f"is {value}", f"expected {bound}")
        return cls(**values)

    def waveform(
        self, waveforms: Tensor, lengths: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Augment ``(batch, samples)`` float waveforms, zero behind their `lengths` ``(batch,)``, which they stay.

        The channels of ``(batch, channels, samples)`` are moved and made louder together; their noise is their own.
        `generator` takes the place of the device's default one.
        """
        if waveforms.ndim == 3:
            rows = waveforms.flatten(0, 1)
            if lengths is not None:
                lengths = lengths.repeat_interleave(waveforms.shape[1])
            return self._rows(rows, lengths, generator, waveforms.shape[1]).view(waveforms.shape)
        return self._rows(waveforms, lengths, generator)

    def _rows(
        self, waveforms: Tensor, lengths: Tensor | None, generator: torch.Generator | None, channels: int = 1
    ) -> Tensor:
        """`waveform` of ``(items * channels, samples)``; the channels of an item share what is drawn for it."""
        rows, samples = waveforms.shape
        batch, device = rows // channels, waveforms.device
        if lengths is None:
            lengths = torch.full((rows,), samples, device=device)
        if self.shift:
            share = self.shift * (2 * torch.rand(batch, device=device, generator=generator) - 1)
            by = (_of_channels(share, channels) * lengths).long()
            roll = roll_rows if device.type == "cpu" else roll_by_index
            waveforms = roll(waveforms, lengths, by)
        if self.gain_db:
            gain = 10 ** (self.gain_db / 20 * (2 * torch.rand(batch, 1, device=device, generator=generator) - 1))
            waveforms = waveforms * _of_channels(gain, channels)
        if self.noise_db is not None:
            level = torch.linalg.vector_norm(waveforms, dim=1) / lengths.sqrt() * 10 ** (-self.noise_db / 20)
            noise = zero_behind(torch.empty_like(waveforms).normal_(generator=generator), lengths)
            waveforms = torch.addcmul(waveforms, noise, level[:, None])
        return waveforms

    def marked(self, features: Tensor) -> Tensor:
        """`spectrogram` for ``(batch, channels + 1, bands, frames)``, whose last channel marks a span of time.

        The mark is moved at its ends and nothing else; the other channels are moved along the bands, raised or
        lowered together, and masked.
        """
        levels, mark = features[:, :-1], features[:, -1:]
        if self.roll_bands:
            by = torch.randint(-self.roll_bands, self.roll_bands + 1, (len(levels),), device=levels.device)
            bands = torch.arange(levels.shape[2], device=levels.device)
            # What would come in from beyond the ends is the band at the end.
            source = (bands - by[:, None]).clamp(0, levels.shape[2] - 1)
            levels = levels[torch.arange(len(levels), device=levels.device)[:, None], :, source].transpose(1, 2)
        if self.level:
            levels = levels + self.level * torch.randn(len(levels), 1, 1, 1, device=levels.device)
        if self.edge_jitter:
            mark = _jittered(mark, self.edge_jitter)
        return torch.cat([self.spectrogram(levels), mark], dim=1)

    def moved(self, batch: Batch) -> Batch:
        """A batch of recordings as stored, with `roll_time` each moved within what its last channel marks.

        Args:
            batch: data ``(batch, channels, bands, frames)``, details ``(batch, frames, k)`` or None.
        """
        if not self.roll_time:
            return batch
        lengths = (batch.data[:, -1, 0] > 0).sum(dim=1)
        by = (torch.rand(len(lengths)) * lengths).long().tolist()
        data = batch.data.clone()
        details = None if batch.details is None else batch.details.clone()
        for row, (length, frames) in enumerate(zip(lengths.tolist(), by, strict=True)):
            data[row, ..., :length] = data[row, ..., :length].roll(frames, -1)
            if details is not None:
                details[row, :length] = details[row, :length].roll(frames, 0)
        return batch._replace(data=data, details=details)

    def spectrogram(self, features: Tensor) -> Tensor:
        """Mask stretches of time and bands of frequency in ``(batch, ...)`` float features."""
        masks = [_mask(features, self.time_width, self.time_axis) for _ in range(self.time_masks)]
        masks += [_mask(features, self.freq_width, self.freq_axis) for _ in range(self.freq_masks)]
        if not masks:
            return features
        mean = features.flatten(1).mean(1).reshape([len(features)] + [1] * (features.ndim - 1))
        return torch.where(functools.reduce(torch.logical_or, masks), mean, features)


def _jittered(mark: Tensor, deviation: float) -> Tensor:
    """A mark ``(batch, 1, bands, frames)``, high within a span, with the ends of the span moved at random."""
    outside, inside = mark.amin(), mark.amax()
    within = mark[:, 0, 0] > (outside + inside) / 2
    frames = torch.arange(mark.shape[3], device=mark.device)
    starts = within.int().argmax(dim=1)
    ends = starts + within.sum(dim=1)
    draws = deviation * torch.randn(2, len(mark), device=mark.device) * within.sum(dim=1)
    starts, ends = starts + draws[0], ends + draws[1]
    moved = (frames >= starts[:, None]) & (frames < ends[:, None])
    return torch.where(moved[:, None, None], inside, outside).expand_as(mark)


def _of_channels(values: Tensor, channels: int) -> Tensor:
    """A value an item as a value a channel."""
    return values.repeat_interleave(channels, 0) if channels > 1 else values


def place(
    waveforms: Tensor, lengths: Tensor, samples: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Bring each item to `samples`: cut a longer one at a random place, put a shorter one at a random place in zeros.

    Args:
        waveforms: ``(batch, [channels,] samples)``.
        lengths: ``(batch,)`` int64.

    Returns:
        The waveforms ``(batch, [channels,] samples)`` and up to where they count ``(batch,)``: to the end of what was
        put there, as of items that stand at the start.
    """
    share = torch.rand(len(waveforms), device=waveforms.device, generator=generator)
    gaps = (lengths - samples).abs()
    starts = torch.minimum((share * (gaps + 1)).long(), gaps)
    placed = waveforms.new_zeros(*waveforms.shape[:-1], samples)
    for new, old, start, length in zip(placed, waveforms, starts.tolist(), lengths.tolist(), strict=True):
        if length > samples:
            new.copy_(old[..., start : start + samples])
        else:
            new[..., start : start + length] = old[..., :length]
    return placed, torch.where(lengths > samples, samples, starts + lengths)


def roll_rows(waveforms: Tensor, lengths: Tensor, by: Tensor) -> Tensor:
    """Each row's first samples, as many as its length, moved `by` ``(batch,)`` samples in a circle."""
    rolled = waveforms.clone()
    for row, length, samples in zip(rolled, lengths.tolist(), by.tolist(), strict=True):
        row[:length] = row[:length].roll(samples)
    return rolled


def roll_by_index(waveforms: Tensor, lengths: Tensor, by: Tensor) -> Tensor:
    """`roll_rows` in a few operations on the whole batch: better on a GPU, on a CPU forty times slower."""
    position = torch.arange(waveforms.shape[1], device=waveforms.device)
    source = (position - by[:, None]) % lengths[:, None]
    return torch.where(position < lengths[:, None], waveforms.gather(1, source), 0.0)


def _mask(features: Tensor, width: float, axis: int) -> Tensor:
    """Where a random stretch of an axis lies: bool, of the axes of `features`, 1 long but the first and `axis`."""
    batch, size = len(features), features.shape[axis]
    device = features.device
    extent = torch.rand(batch, 1, device=device) * width * size
    start = torch.rand(batch, 1, device=device) * (size - extent)
    position = torch.arange(size, device=device)
    shape = [batch] + [1] * (features.ndim - 1)
    shape[axis] = size
    return ((position >= start) & (position < start + extent)).reshape(shape)
