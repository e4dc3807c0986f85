"""The input of the AudioSet networks of EfficientAT (arXiv 2211.04772): log-mel, 128 bands, 32 kHz."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from data_loader.audio import MAX_SECONDS
from data_loader.features.common import choose, resample, squared_magnitude
from data_loader.features.feature import register_feature
from data_loader.features.mel import fit_duration
from utils.errors import UserError

RATE = 32000
BANDS = 128
N_FFT, WINDOW, HOP = 1024, 800, 320
TOP_HZ = 15000.0
PREEMPHASIS = 0.97
POWER_OFFSET = 1e-5
# What the authors bring the logarithm to about [-1, 1] with.
SHIFT, SCALE = 4.5, 5.0
# The spectrum of a shorter one could not be mirrored at its ends.
_LEAST_SECONDS = 0.1


@functools.lru_cache(maxsize=1)
def kaldi_filters() -> Tensor:
    """Kaldi's triangular mel filters ``(513, 128)`` float32, 0 Hz to 15 kHz, peak 1, straight on the mel axis."""
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(BANDS, N_FFT, float(RATE), 0.0, TOP_HZ, 100.0, -500.0, 1.0)
    return functional.pad(filters, (0, 1)).T.contiguous()


@register_feature("mel32k", batch_size=4, resamples=True)
def mel32k(waveforms: Tensor, rate: int, lengths: Tensor, *, duration: float = 10.0, fit: str = "repeat") -> Tensor:
    """Log-mel spectrogram ``(batch, 1, 128, frames)`` of the audio resampled to 32 kHz.

    As the networks of EfficientAT hear in evaluation: pre-emphasis ``x[n + 1] - 0.97 x[n]``; power spectrogram,
    n_fft 1024, symmetric Hann window of 25 ms every 10 ms, centred, mirrored at the ends; Kaldi's mel filters from 0
    to 15 kHz; ``(ln(power + 1e-5) + 4.5) / 5``. There are ``1 + (32000 duration - 1) // 320`` frames, 1000 for 10 s.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        duration: seconds that every item is brought to; a longer one is cropped to its first seconds.
        fit: "repeat" repeats a shorter item, "pad" pads it with zeros.

    Raises:
        UserError: a parameter is out of its range.
    """
    choose("fit", fit, ("repeat", "pad"))
    if not _LEAST_SECONDS <= duration <= MAX_SECONDS:
        raise UserError("duration", f"is {duration}", f"choose {_LEAST_SECONDS} to {MAX_SECONDS:g} seconds")
    samples = fit_duration(*resample(waveforms, rate, RATE, lengths), round(duration * RATE), fit)
    emphasised = samples[:, 1:] - PREEMPHASIS * samples[:, :-1]
    window = torch.hann_window(WINDOW, periodic=False, device=samples.device)
    spectrum = torch.stft(emphasised, N_FFT, HOP, WINDOW, window, center=True, pad_mode="reflect", return_complex=True)
    power = kaldi_filters().T.to(samples.device) @ squared_magnitude(spectrum)
    return ((power + POWER_OFFSET).log() + SHIFT).div(SCALE).unsqueeze(1)
