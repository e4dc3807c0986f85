"""What several feature methods share: masks, framing, resampling and resizing of batches of unequal lengths."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from utils.errors import UserError, nearest

_MEL_BLOCK = 32
# On a GPU, `interpolate` keeps the filter of its antialiasing in 48 KB, and refuses to shrink by more than 184.
_MOST_SHRUNK_ON_GPU = 180


def is_valid(lengths: Tensor, size: int) -> Tensor:
    """Mask ``(batch, size)``, true where a row's index is below its length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def zero_behind(values: Tensor, lengths: Tensor) -> Tensor:
    """``(batch, time, ...)`` with each item set to zero behind its length, in place."""
    if values.device.type == "cpu":
        # A mask over a batch of waveforms costs more than the few samples behind each.
        size = values.shape[1]
        for item, length in enumerate(lengths.tolist()):
            if length < size:
                values[item, length:] = 0.0
        return values
    mask = is_valid(lengths, values.shape[1])
    return values.masked_fill_(~mask.view(*mask.shape, *[1] * (values.ndim - 2)), 0.0)


def choose(parameter: str, value: str, choices: Iterable[str]) -> None:
    """Raise a UserError naming the parameter and the nearest choice if `value` is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise UserError(parameter, f"there is no {parameter} {value!r}", nearest(value, choices))


@functools.lru_cache(maxsize=8)
def _resampling(rate: int, new_rate: int) -> tuple[Tensor, int, int]:
    """torchaudio's windowed sinc as a matrix over blocks of samples.

    Returns:
        ``(samples read, samples written)`` float32, by how many samples a block advances, and how many samples lie
        before the first block.
    """
    from torchaudio.transforms import Resample

    sinc = Resample(rate, new_rate)
    kernel = sinc.kernel[:, 0]
    divisor = math.gcd(rate, new_rate)
    down, up, taps = rate // divisor, new_rate // divisor, kernel.shape[1]
    # One step of the convolution writes `up` samples for `down` read; several make a matrix worth multiplying with.
    steps = max(1, 32 // down)
    matrix = torch.zeros((steps - 1) * down + taps, steps * up)
    for step in range(steps):
        matrix[step * down : step * down + taps, step * up : (step + 1) * up] = kernel.T
    return matrix, steps * down, sinc.width


def resample(waveforms: Tensor, rate: int, new_rate: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Band-limited resampling of a batch, zero behind each new length.

    torchaudio.functional.resample up to rounding; its convolution of one channel is several times as slow on a CPU
    for the rates of lung sounds.

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
    divisor = math.gcd(rate, new_rate)
    up, down = new_rate // divisor, rate // divisor
    new_lengths = (lengths * up + down - 1) // down
    matrix, advance, before = _resampling(rate, new_rate)
    blocks = -(-waveforms.shape[1] // advance)
    padding = (before, blocks * advance - waveforms.shape[1] + len(matrix) - advance)
    frames = functional.pad(waveforms, padding).unfold(1, len(matrix), advance)[:, :blocks]
    resampled = (frames @ matrix.to(waveforms.device)).flatten(1)[:, : int(new_lengths.max())]
    return zero_behind(resampled, new_lengths), new_lengths


@functools.lru_cache(maxsize=16)
def _hann(window: int, n_fft: int) -> Tensor:
    before = (n_fft - window) // 2
    return functional.pad(torch.hann_window(window), (before, n_fft - window - before))


def power_spectrogram(
    waveforms: Tensor, window: int, hop: int, n_fft: int | None = None, bordered: bool = False
) -> Tensor:
    """Power spectrogram with a periodic Hann window, frame ``t`` centred on sample ``t * hop``, zeros beyond the ends.

    The zeros make the frames of an item, the first ``1 + length // hop``, independent of what is padded behind it.

    Args:
        waveforms: ``(batch, samples)``.
        window, hop: samples.
        n_fft: even; the window is zero-padded to it, `window` by default.
        bordered: `waveforms` has ``n_fft // 2`` zeros on either side already.

    Returns:
        ``(batch, 1 + samples // hop, n_fft // 2 + 1)``.
    """
    n_fft = n_fft or window
    padded = waveforms if bordered else functional.pad(waveforms, (n_fft // 2, n_fft // 2))
    frames = padded.unfold(1, n_fft, hop)
    # Into a contiguous tensor: the product would have the strides of the overlapping frames, which the FFT is slow on.
    windowed = torch.mul(frames, _hann(window, n_fft).to(frames.device), out=frames.new_empty(frames.shape))
    return squared_magnitude(torch.fft.rfft(windowed))


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """``|z|^2`` of a complex tensor, which is used up; several times as fast as ``spectrum.abs().square()``."""
    parts = torch.view_as_real(spectrum).square_()
    return parts[..., 0] + parts[..., 1]


def to_decibel(power: Tensor, floor: float) -> Tensor:
    """``10 log10(max(power, floor))``."""
    return 10.0 * power.clamp(min=floor).log10()


def resize_frames(frames: Tensor, counts: Tensor, size: int) -> Tensor:
    """Resize the valid frames of each item to `size` frames, as if the item were alone (bilinear, antialiased).

    Args:
        frames: ``(batch, frames, channels)``, finite.
        counts: ``(batch,)`` int64, the frames of each item that count, at least 1.
        size: frames wanted.

    Returns:
        ``(batch, size, channels)``.
    """
    if int(counts.max()) <= size:
        return _stretch_frames(frames, counts, size)
    resized = frames.new_empty(len(frames), size, frames.shape[2])
    # Items are sorted by length where they are batched: neighbours of one length are resized at once.
    start = 0
    for count, run in itertools.groupby(counts.tolist()):
        stop = start + len(list(run))
        image = frames[start:stop, None, :count]
        if image.device.type != "cpu" and count > _MOST_SHRUNK_ON_GPU * size:
            image = image.cpu()
        resized[start:stop] = functional.interpolate(image, (size, frames.shape[2]), mode="bilinear", antialias=True)[
            :, 0
        ]
        start = stop
    return resized


def _stretch_frames(frames: Tensor, counts: Tensor, size: int) -> Tensor:
    """`resize_frames` of items that grow: nothing to smooth, each new frame lies between two old ones."""
    last = counts[:, None] - 1
    position = (torch.arange(size, device=frames.device) + 0.5) * (counts[:, None] / size) - 0.5
    position = torch.minimum(position.clamp_(min=0.0), last)
    below = position.floor()
    weight = (position - below).view(-1, 1)
    row = below.long()
    offset = torch.arange(len(frames), device=frames.device)[:, None] * frames.shape[1]
    flat = frames.flatten(0, 1)
    here = flat.index_select(0, (row + offset).view(-1))
    following = flat.index_select(0, (torch.minimum(row + 1, last) + offset).view(-1))
    return torch.lerp(here, following, weight).unflatten(0, (len(frames), size))


@functools.lru_cache(maxsize=16)
def mel_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters ``(n_fft // 2 + 1, n_mels)`` on the HTK mel scale, peak 1 (torchaudio's defaults)."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, rate)


@functools.lru_cache(maxsize=16)
def _mel_blocks(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> list[tuple[int, Tensor]]:
    """`mel_filters` in blocks of bands: the first bin of each that is not zero, and its bins ``(bins, bands)``."""
    blocks = []
    for filters in mel_filters(rate, n_fft, n_mels, f_min, f_max).split(_MEL_BLOCK, dim=1):
        used = filters.any(dim=1).nonzero()[:, 0]
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        blocks.append((first, filters[first : last + 1].contiguous()))
    return blocks


def mel_power(power: Tensor, rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Mel bands ``(..., n_mels)`` of a power spectrogram ``(..., n_fft // 2 + 1)``; see `mel_filters`.

    Filters are narrow: a few bands at a time, over the bins that they reach, take a fraction of the whole product.
    """
    blocks = _mel_blocks(rate, n_fft, n_mels, f_min, f_max)
    bands = [power[..., first : first + len(part)] @ part.to(power.device) for first, part in blocks]
    return torch.cat(bands, dim=-1)
