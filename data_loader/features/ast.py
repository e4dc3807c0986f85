"""The input of the Audio Spectrogram Transformer (arXiv 2104.01778): a mel spectrogram at 16 kHz."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from data_loader.features.common import (
    choose,
    is_valid,
    mel_power,
    power_spectrogram,
    resample,
    resize_frames,
    squared_magnitude,
    to_decibel,
)
from data_loader.features.feature import register_feature

RATE = 16000
FRAMES = 256
BANDS = 128
N_FFT, HOP = 2048, 1024
# Lung sounds are quiet (RMS near 0.008, mel power near 0.1 in their bands): -100 dB lies well below them.
POWER_FLOOR = 1e-10
KALDI_WINDOW, KALDI_HOP, KALDI_N_FFT = 400, 160, 512
PREEMPHASIS = 0.97


@functools.lru_cache(maxsize=1)
def _kaldi_filters() -> Tensor:
    """Kaldi's mel filters ``(257, 128)``, 20 Hz to 8 kHz."""
    from torchaudio.compliance.kaldi import get_mel_banks

    filters, _ = get_mel_banks(BANDS, KALDI_N_FFT, float(RATE), 20.0, 0.0, 100.0, -500.0, 1.0)
    return functional.pad(filters, (0, 1)).T.contiguous()


def mel_frames(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mel spectrogram in dB, ``(batch, frames, 128)``, and the frames of each item, of 16 kHz waveforms."""
    power = mel_power(power_spectrogram(waveforms, N_FFT, HOP), RATE, N_FFT, BANDS, 0.0, RATE / 2)
    return to_decibel(power, POWER_FLOOR), 1 + lengths // HOP


def kaldi_frames(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Kaldi log mel fbank ``(batch, frames, 128)`` and the frames of each item, of 16 kHz waveforms.

    Equals ``torchaudio.compliance.kaldi.fbank(x - x.mean(), htk_compat=True, sample_frequency=16000,
    use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)``, for a batch.
    """
    lengths = lengths.clamp(min=1)
    mean = waveforms.sum(1, keepdim=True) / lengths[:, None]
    centred = torch.where(is_valid(lengths, waveforms.shape[1]), waveforms - mean, 0.0)
    centred = functional.pad(centred, (0, max(0, KALDI_WINDOW - centred.shape[1])))
    frames = centred.unfold(1, KALDI_WINDOW, KALDI_HOP)
    frames = frames - frames.mean(2, keepdim=True)
    frames = frames - PREEMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
    window = torch.hann_window(KALDI_WINDOW, periodic=False, device=waveforms.device)
    energy = squared_magnitude(torch.fft.rfft(frames * window, n=KALDI_N_FFT)) @ _kaldi_filters().to(waveforms.device)
    counts = 1 + (lengths - KALDI_WINDOW).clamp(min=0) // KALDI_HOP
    return energy.clamp(min=torch.finfo(torch.float32).eps).log(), counts


FRONTENDS = {"mel": mel_frames, "kaldi": kaldi_frames}


@register_feature("ast", batch_seconds=20, resamples=True)
def ast(waveforms: Tensor, rate: int, lengths: Tensor, *, frontend: str = "mel") -> Tensor:
    """Mel spectrogram ``(batch, 256, 128)``, ``(batch, frames, mel bands)``, of the audio resampled to 16 kHz.

    An item's frames are resized to 256 (bilinear, antialiased). An item shorter than a frame is zero-padded to one.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        frontend: "mel": power mel spectrogram (HTK scale), n_fft 2048, hop 1024, centred, ``10 log10`` with a floor
            of -100 dB. "kaldi": log mel fbank of 25 ms every 10 ms, natural logarithm, of the waveform less its mean,
            as AST was pretrained on.

    Raises:
        UserError: there is no such front end.
    """
    choose("frontend", frontend, FRONTENDS)
    frames, counts = FRONTENDS[frontend](*resample(waveforms, rate, RATE, lengths))
    return resize_frames(frames, counts, FRAMES)
