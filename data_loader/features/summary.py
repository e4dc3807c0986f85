"""Summary statistics of a sound: what classical classifiers take."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from data_loader.features.common import is_valid, mel_power, power_spectrogram, to_decibel, zero_behind
from data_loader.features.feature import register_feature
from data_loader.features.mel import POWER_FLOOR, fft_size
from utils.errors import UserError

WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.008
BANDS = 40
ROLL_OFF = 0.85
PITCHES = 12
A4_HZ = 440.0
QUANTILES = (0.1, 0.5, 0.9)
# What counts as no variation at all in dB, kHz and shares: the skew of rounding errors would be any number.
FLAT = 1e-3


@functools.lru_cache(maxsize=16)
def _pitch_filters(rate: int, n_fft: int) -> Tensor:
    """The share of each bin in each pitch class, ``(n_fft // 2 + 1, 12)``, C first; none of the bin at 0 Hz.

    A bin lies between two semitones of the equal temperament, and is split between them by its distance in semitones.
    """
    frequency = torch.arange(1, n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    # A is the ninth semitone above C.
    semitone = PITCHES * (frequency / A4_HZ).log2() + 9
    below = semitone.floor()
    upper = (semitone - below)[:, None]
    lower_class = functional.one_hot(below.long() % PITCHES, PITCHES)
    filters = (1 - upper) * lower_class + upper * lower_class.roll(1, dims=1)
    return functional.pad(filters, (0, 0, 1, 0)).float()


def _spectral_shape(magnitude: Tensor, top_khz: float) -> list[Tensor]:
    """Centroid, bandwidth and roll-off in kHz of each frame, ``(batch, frames)``; 0 of a silent one."""
    frequency = torch.linspace(0, top_khz, magnitude.shape[2], device=magnitude.device)
    total = magnitude.sum(2)
    share = magnitude / torch.where(total > 0, total, 1.0)[..., None]
    centroid = share @ frequency
    bandwidth = ((frequency - centroid[..., None]).square() * share).sum(2).sqrt()
    # The roll-off lies within the bin that the running sum passes it in: a step of a whole bin would be all the
    # difference that a rounding error needs.
    running = share.cumsum(2)
    bin_ = (running < ROLL_OFF).sum(2, keepdim=True).clamp(max=magnitude.shape[2] - 1)
    its_share = share.gather(2, bin_)
    within = (ROLL_OFF - running.gather(2, bin_) + its_share) / torch.where(its_share > 0, its_share, 1.0)
    position = (bin_ - 1 + within.clamp(0, 1)).clamp(min=0)[..., 0] * (top_khz / (magnitude.shape[2] - 1))
    return [centroid, bandwidth, torch.where(total > 0, position, 0.0)]


def _zero_crossings(waveforms: Tensor, lengths: Tensor, window: int, hop: int, frames: int) -> Tensor:
    """The share of neighbouring samples of other sign in each frame ``(batch, frames)``; zero counts as positive."""
    negative = waveforms < 0
    crossed = functional.pad(negative[:, 1:] != negative[:, :-1], (1, 0))
    before = functional.pad(crossed.int().cumsum(1), (1, 0))
    centre = torch.arange(frames, device=waveforms.device) * hop
    # The pairs of a frame, within the item: each has the number of its second sample.
    first = (centre - window // 2 + 1).clamp(min=1).expand(len(waveforms), -1)
    last = torch.minimum((centre + window // 2).expand(len(waveforms), -1), lengths[:, None])
    size = before.shape[1] - 1
    count = before.gather(1, last.clamp(max=size)) - before.gather(1, first.clamp(max=size))
    return count / (last - first).clamp(min=1)


def frame_features(waveforms: Tensor, rate: int, lengths: Tensor, n_mfcc: int) -> tuple[Tensor, Tensor]:
    """What is measured in each frame of 32 ms every 8 ms, ``(batch, frames, n_mfcc + 17)``, and the frames of each.

    In this order: MFCC (of 40 mel bands in dB; orthonormal DCT-II), the centroid, the bandwidth and the 85 % roll-off
    of the magnitude spectrum in kHz, zero crossings a sample, the energy in dB (mean square under the window, floor
    -100), and 12 pitch classes (shares of the frame's power, C first). Frames are centred, with zeros beyond the ends.
    """
    from torchaudio.functional import create_dct

    window, hop = (max(2, 2 * round(seconds * rate / 2)) for seconds in (WINDOW_SECONDS, HOP_SECONDS))
    n_fft = fft_size(rate, window, BANDS, 0.0, rate / 2)
    power = power_spectrogram(waveforms, window, hop, n_fft)
    bands = to_decibel(mel_power(power, rate, n_fft, BANDS, 0.0, rate / 2), POWER_FLOOR)
    mfcc = bands @ create_dct(n_mfcc, BANDS, "ortho").to(bands.device)
    # Parseval: all bins but the first and the last stand for two. The squares of a periodic Hann window sum to 3/8.
    both = 2 * power.sum(2) - power[..., 0] - power[..., -1]
    energy = to_decibel(both / (n_fft * 0.375 * window), POWER_FLOOR)
    pitches = power @ _pitch_filters(rate, n_fft).to(power.device)
    total = pitches.sum(2, keepdim=True)
    chroma = pitches / torch.where(total > 0, total, 1.0)
    crossings = _zero_crossings(waveforms, lengths, window, hop, power.shape[1])
    single = [*_spectral_shape(power.sqrt(), rate / 2000), crossings, energy]
    return torch.cat([mfcc, torch.stack(single, dim=2), chroma], dim=2), 1 + lengths // hop


def frame_statistics(values: Tensor, counts: Tensor) -> Tensor:
    """Statistics over the valid frames, ``(batch, 6, channels)``: mean, deviation, skew, 10 %, 50 % and 90 % quantile.

    The deviation is that of the frames themselves (divided by their number); quantiles are linear between frames. The
    skew is the third moment over the third power of the deviation; of values that hardly vary it goes to 0.

    Args:
        values: ``(batch, frames, channels)``, finite.
        counts: ``(batch,)`` int64, at least 1.
    """
    values = zero_behind(values.clone(), counts)
    number = counts[:, None].to(values.dtype)
    mean = values.sum(1) / number
    away = zero_behind(values - mean[:, None], counts)
    variance = away.square().sum(1) / number
    skew = away.pow(3).sum(1) / number / (variance + FLAT**2).pow(1.5)
    mask = is_valid(counts, values.shape[1])[..., None]
    ordered = values.masked_fill(~mask, torch.inf).sort(dim=1).values
    quantiles = []
    for share in QUANTILES:
        position = share * (counts - 1).double()
        below = position.floor()
        weight = (position - below).to(values.dtype)[:, None]
        rows = torch.stack([below.long(), torch.minimum(below.long() + 1, counts - 1)], dim=1)
        low, high = ordered.gather(1, rows[..., None].expand(-1, -1, values.shape[2])).unbind(1)
        quantiles.append(torch.lerp(low, high, weight))
    return torch.stack([mean, variance.sqrt(), skew, *quantiles], dim=1)


@register_feature("summary", batch_seconds=40)
def summary(waveforms: Tensor, rate: int, lengths: Tensor, *, n_mfcc: int = 13) -> Tensor:
    """Statistics of a sound's frames, ``(batch, 6 * (n_mfcc + 17))``: all means first, then all deviations, ...

    See `frame_features` for what is measured in a frame and `frame_statistics` for the six statistics. Normalise each
    number by itself, not all together: they have different units.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        n_mfcc: cepstral coefficients, 1 to 40, the first one included.

    Raises:
        UserError: `n_mfcc` is out of its range.
    """
    if not 1 <= n_mfcc <= BANDS:
        raise UserError("n_mfcc", f"is {n_mfcc}", f"choose 1 to {BANDS}")
    values, counts = frame_features(waveforms, rate, lengths, n_mfcc)
    return frame_statistics(values, counts).flatten(1)
