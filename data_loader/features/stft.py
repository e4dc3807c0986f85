"""The STFT picture: log frequency against time, after the data set's paper (arXiv 2208.13943)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from data_loader.features.bandpass import normalised_bandpass
from data_loader.features.common import is_valid, power_spectrogram, resize_frames
from data_loader.features.feature import register_feature

SIZE = 224
HOP_SECONDS = 0.010
FLOOR_DB = -80.0


@functools.lru_cache(maxsize=8)
def log_frequency_axis(bins: int) -> Tensor:
    """Matrix ``(bins, 224)`` that reads a spectrum at 224 frequencies, equally spaced in their logarithm.

    They run from bin 1 (50 Hz) to the last bin (the Nyquist frequency), linearly interpolated between bins.
    """
    position = torch.logspace(0.0, 1.0, SIZE, base=float(bins - 1), dtype=torch.float64)
    distance = (torch.arange(bins)[:, None] - position.clamp(max=bins - 1)).abs()
    return (1.0 - distance).clamp(min=0.0).float()


@register_feature("stft", unit_range=True, batch_size=8)
def stft(waveforms: Tensor, rate: int, lengths: Tensor) -> Tensor:
    """Decibel STFT picture ``(batch, 1, 224, 224)`` in [0, 1], ``(batch, 1, frequency, time)``, low frequency first.

    Min-max normalisation, band-pass (see `normalised_bandpass`), STFT with a periodic Hann window of 20 ms every
    10 ms, decibels below the item's own maximum with a floor of -80 dB, resized to 224 times (bilinear, antialiased)
    and 224 logarithmically spaced frequencies from 50 Hz to the Nyquist frequency, scaled by ``(dB + 80) / 80``.
    An item without any variation (silence, a constant) has no maximum to refer to: it is at the floor, 0, throughout.
    """
    hop = max(1, round(HOP_SECONDS * rate))
    frames = 1 + lengths // hop
    power = power_spectrogram(normalised_bandpass(waveforms, rate, lengths), 2 * hop, hop)
    loudest = power.amax(dim=2).masked_fill(~is_valid(frames, power.shape[1]), 0.0).amax(dim=1)
    gain = torch.where(loudest > 1e-30, 1.0 / loudest, 0.0)
    floor = 10.0 ** (FLOOR_DB / 10.0)
    level = power.mul_(gain[:, None, None]).clamp_(floor, 1.0).log10_().mul_(-10.0 / FLOOR_DB).add_(1.0)
    picture = resize_frames(level, frames, SIZE) @ log_frequency_axis(power.shape[2]).to(power.device)
    return picture.clamp_(0.0, 1.0).transpose(1, 2).unsqueeze(1).contiguous()
