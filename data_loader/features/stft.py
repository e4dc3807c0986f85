"""The STFT picture: log frequency against time, after the data set's paper (arXiv 2208.13943)."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from data_loader.features.bandpass import normalised_bandpass
from data_loader.features.common import power_spectrogram, resize_frames, zero_behind
from data_loader.features.feature import register_feature

SIZE = 224
HOP_SECONDS = 0.010
FLOOR_DB = -80.0


@functools.lru_cache(maxsize=8)
def log_frequency_axis(bins: int) -> tuple[Tensor, Tensor]:
    """Where to read a spectrum of `bins` at 224 frequencies, equally spaced in their logarithm.

    They run from bin 1 (50 Hz) to the last bin (the Nyquist frequency), linearly interpolated between bins.

    Returns:
        ``(224,)`` int64, the bin below each frequency, and ``(224, 1)`` float32, how far it lies towards the next.
    """
    position = torch.logspace(0.0, 1.0, SIZE, base=float(bins - 1), dtype=torch.float64).clamp(max=bins - 1)
    below = position.floor().clamp(max=bins - 2)
    return below.long(), (position - below).float()[:, None]


@register_feature("stft", unit_range=True, batch_seconds=40)
def stft(waveforms: Tensor, rate: int, lengths: Tensor) -> Tensor:
    """Decibel STFT picture ``(batch, 1, 224, 224)`` in [0, 1], ``(batch, 1, frequency, time)``, low frequency first.

    Min-max normalisation, band-pass (see `normalised_bandpass`), STFT with a periodic Hann window of 20 ms every
    10 ms, decibels below the item's own maximum with a floor of -80 dB, resized to 224 times (bilinear, antialiased)
    and 224 logarithmically spaced frequencies from 50 Hz to the Nyquist frequency, scaled by ``(dB + 80) / 80``.
    An item without any variation (silence, a constant) has no maximum to refer to: it is at the floor, 0, throughout.
    """
    hop = max(1, round(HOP_SECONDS * rate))
    frames = 1 + lengths // hop
    filtered = normalised_bandpass(waveforms, rate, lengths, border=hop)
    power = zero_behind(power_spectrogram(filtered, 2 * hop, hop, bordered=True), frames)
    loudest = power.flatten(1).amax(dim=1)
    # (dB + 80) / 80 is a multiple of the logarithm less that of the maximum. Silence has none: it is at the floor.
    scale = -10.0 / FLOOR_DB
    offset = torch.where(loudest > 1e-30, 1.0 - scale * loudest.log10(), -torch.inf)
    level = torch.add(offset[:, None, None], power.log10_(), alpha=scale).clamp_(0.0, 1.0)
    spectra = resize_frames(level, frames, SIZE).transpose(1, 2).contiguous()
    below, weight = (part.to(power.device) for part in log_frequency_axis(power.shape[2]))
    picture = torch.lerp(spectra.index_select(1, below), spectra.index_select(1, below + 1), weight)
    return picture.clamp_(0.0, 1.0).unsqueeze(1)
