"""What several feature methods share: masks, framing, resampling and resizing of batches of unequal lengths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from utils.errors import UserError, nearest


def is_valid(lengths: Tensor, size: int) -> Tensor:
    """Mask ``(batch, size)``, true where a row's index is below its length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def choose(parameter: str, value: str, choices: Iterable[str]) -> None:
    """Raise a UserError naming the parameter and the nearest choice if `value` is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise UserError(parameter, f"there is no {parameter} {value!r}", nearest(value, choices))


def resample(waveforms: Tensor, rate: int, new_rate: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Band-limited resampling of a batch (torchaudio's windowed sinc), zero behind each new length.

    Args:
        waveforms: ``(batch, samples)`` float32, zero behind each length.
        rate: samples a second now.
        new_rate: samples a second wanted.
        lengths: ``(batch,)`` int64.

    Returns:
        The waveforms ``(batch, new samples)`` and their lengths ``ceil(length * new_rate / rate)``.
    """
    if rate == new_rate:
        return waveforms, lengths
    from torchaudio.functional import resample as sinc_resample

    divisor = math.gcd(rate, new_rate)
    up, down = new_rate // divisor, rate // divisor
    new_lengths = (lengths * up + down - 1) // down
    # torchaudio computes its output length in float32, which may be one short; the spare input covers that.
    resampled = sinc_resample(functional.pad(waveforms, (0, down)), rate, new_rate)[:, : int(new_lengths.max())]
    return resampled.masked_fill(~is_valid(new_lengths, resampled.shape[1]), 0.0), new_lengths


@functools.lru_cache(maxsize=16)
def _hann(window: int, n_fft: int) -> Tensor:
    before = (n_fft - window) // 2
    return functional.pad(torch.hann_window(window), (before, n_fft - window - before))


def power_spectrogram(waveforms: Tensor, window: int, hop: int, n_fft: int | None = None) -> Tensor:
    """Power spectrogram with a periodic Hann window, frame ``t`` centred on sample ``t * hop``, zeros beyond the ends.

    The zeros make the frames of an item, the first ``1 + length // hop``, independent of what is padded behind it.

    Args:
        waveforms: ``(batch, samples)``.
        window, hop: samples.
        n_fft: even; the window is zero-padded to it, `window` by default.

    Returns:
        ``(batch, 1 + samples // hop, n_fft // 2 + 1)``.
    """
    n_fft = n_fft or window
    frames = functional.pad(waveforms, (n_fft // 2, n_fft // 2)).unfold(1, n_fft, hop)
    return squared_magnitude(torch.fft.rfft(frames * _hann(window, n_fft).to(waveforms.device)))


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """``|z|^2`` of a complex tensor, several times as fast as ``spectrum.abs().square()``."""
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)


def to_decibel(power: Tensor, floor: float) -> Tensor:
    """``10 log10(max(power, floor))``."""
    return 10.0 * power.clamp(min=floor).log10()


def resize_weights(counts: Tensor, size: int, width: int) -> Tensor:
    """Matrices that resize `counts` frames to `size` by linear interpolation with antialiasing.

    They equal ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)`` along one axis: a triangle as wide
    as the larger of the two frame spacings.

    Args:
        counts: ``(n,)`` int64, frames of each item, at least 1.
        size: frames wanted.
        width: frames of the padded batch, at least ``counts.max()``.

    Returns:
        ``(n, size, width)`` float32; each row sums to 1 and is zero from the count on.
    """
    scale = counts[:, None, None].double() / size
    support = scale.clamp(min=1.0)
    centre = (torch.arange(size, device=counts.device)[:, None] + 0.5) * scale
    # Only the frames under the triangles, a few of `width`, are computed, then put in their places.
    first = (centre - support).floor()
    frame = first + torch.arange(2 * max(1, -(-width // size)) + 3, device=counts.device)
    weights = (1.0 - (frame + 0.5 - centre).abs() / support).clamp_(min=0.0)
    weights.masked_fill_((frame < 0) | (frame >= counts[:, None, None]), 0.0)
    weights /= weights.sum(-1, keepdim=True)
    matrices = torch.zeros(len(counts), size, width, device=counts.device)
    return matrices.scatter_add_(2, frame.long().clamp_(0, width - 1), weights.float())


def resize_frames(frames: Tensor, counts: Tensor, size: int) -> Tensor:
    """Resize the valid frames of each item to `size` frames, as if the item were alone; see `resize_weights`.

    Args:
        frames: ``(batch, frames, channels)``, finite.
        counts: ``(batch,)`` int64, the frames of each item that count, at least 1.
        size: frames wanted.

    Returns:
        ``(batch, size, channels)``.
    """
    distinct, which = counts.unique(return_inverse=True)
    weights = resize_weights(distinct, size, frames.shape[1])
    # One matrix for the whole batch where all counts agree, as they do for most recordings of a data set.
    return torch.matmul(weights[0] if len(distinct) == 1 else weights[which], frames)


@functools.lru_cache(maxsize=16)
def mel_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters ``(n_fft // 2 + 1, n_mels)`` on the HTK mel scale, peak 1 (torchaudio's defaults)."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, rate)
