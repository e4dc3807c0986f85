"""Augmentation of training batches, on the device of the batch.

Random numbers come from the device's default generator, in the training process: the number of loader workers does
not change them, and a checkpoint that keeps the generator's state continues them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from utils.arguments import matches
from utils.errors import UserError, nearest


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training batch; by default nothing.

    Attributes:
        gain_db: waveforms are made louder or softer by up to this many dB.
        noise_db: white noise this far below the waveform's own level (dB) is added; None adds none.
        shift: waveforms are moved in a circle by up to this share of their length.
        time_masks, freq_masks: how many stretches of time and bands of frequency are masked with the item's mean
            (SpecAugment: Park et al., arXiv 1904.08779).
        time_width, freq_width: greatest width of a mask, as a share of the axis.
        time_axis, freq_axis: which axes of an item these are, counted from its end.
    """

    gain_db: float = 0.0
    noise_db: float | None = None
    shift: float = 0.0
    time_masks: int = 0
    time_width: float = 0.1
    freq_masks: int = 0
    freq_width: float = 0.1
    time_axis: int = -1
    freq_axis: int = -2

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
            if not matches(value, float | None if key == "noise_db" else float):
                raise UserError(f"{where}.{key}", f"is {value!r}, not a number")
        for key in ("shift", "time_width", "freq_width"):
            if not 0 <= values.get(key, 0) <= 1:
                raise UserError(f"{where}.{key}", f"is {values[key]}", "a share lies between 0 and 1")
        for key in ("time_masks", "freq_masks", "time_axis", "freq_axis"):
            if not isinstance(values.get(key, 0), int):
                raise UserError(f"{where}.{key}", f"is {values[key]!r}, not a whole number")
        for key in ("gain_db", "time_masks", "freq_masks"):
            if values.get(key, 0) < 0:
                raise UserError(f"{where}.{key}", f"is {values[key]}", "expected at least 0")
        return cls(**values)

    def waveform(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Augment ``(batch, samples)`` float waveforms; `lengths` ``(batch,)`` samples of each count."""
        batch, samples = waveforms.shape
        device = waveforms.device
        if lengths is None:
            lengths = torch.full((batch,), samples, device=device)
        position = torch.arange(samples, device=device)
        inside = position < lengths[:, None]
        if self.shift:
            moved = (self.shift * lengths * (2 * torch.rand(batch, device=device) - 1)).long()
            source = (position - moved[:, None]) % lengths[:, None]
            waveforms = waveforms.gather(1, source)
        if self.gain_db:
            gain = 10 ** (self.gain_db / 20 * (2 * torch.rand(batch, 1, device=device) - 1))
            waveforms = waveforms * gain
        if self.noise_db is not None:
            power = waveforms.square().mul(inside).sum(1) / lengths
            level = power.sqrt() * 10 ** (-self.noise_db / 20)
            waveforms = waveforms + torch.randn_like(waveforms) * level[:, None]
        return waveforms * inside

    def spectrogram(self, features: Tensor) -> Tensor:
        """Mask stretches of time and bands of frequency in ``(batch, ...)`` float features."""
        for count, width, axis in (
            (self.time_masks, self.time_width, self.time_axis),
            (self.freq_masks, self.freq_width, self.freq_axis),
        ):
            for _ in range(count):
                features = _mask(features, width, axis)
        return features


def _mask(features: Tensor, width: float, axis: int) -> Tensor:
    batch, size = len(features), features.shape[axis]
    device = features.device
    extent = torch.rand(batch, 1, device=device) * width * size
    start = torch.rand(batch, 1, device=device) * (size - extent)
    position = torch.arange(size, device=device)
    masked = (position >= start) & (position < start + extent)
    shape = [batch] + [1] * (features.ndim - 1)
    shape[axis] = size
    mean = features.flatten(1).mean(1).reshape([batch] + [1] * (features.ndim - 1))
    return torch.where(masked.reshape(shape), mean, features)
