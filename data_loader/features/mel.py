"""Log-mel spectrogram of a fixed duration at the native rate."""

from __future__ import annotations

import functools
import math

from torch import Tensor

from data_loader.audio import MAX_SECONDS
from data_loader.features.common import choose, mel_power, power_spectrogram, to_decibel
from data_loader.features.feature import register_feature
from utils.errors import UserError

# -100 dB: below any lung sound at 16 bits, above the rounding errors of float32.
POWER_FLOOR = 1e-10
# 500 MB for one item.
_MOST_NUMBERS = 1 << 27


@functools.lru_cache(maxsize=64)
def fft_size(rate: int, window: int, n_mels: int, f_min: float, f_max: float) -> int:
    """The smallest power of two that holds the window and is fine enough that no mel band is empty."""

    def hertz(mel: float) -> float:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)

    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (f_min, f_max))
    narrowest = hertz(low + 2.0 * (high - low) / (n_mels + 1)) - f_min
    return 1 << math.ceil(math.log2(max(window, rate / max(narrowest, 1e-6), 2)))


def fit_duration(waveforms: Tensor, lengths: Tensor, samples: int, fit: str) -> Tensor:
    """Bring every item to `samples`: crop a long one to its first samples, repeat or zero-pad a short one."""
    fitted = waveforms.new_zeros(len(waveforms), samples)
    # Item by item: an index of every sample would cost more than the spectrogram of a short item.
    for item, waveform, length in zip(fitted, waveforms, lengths.clamp(min=1).tolist(), strict=True):
        if fit == "repeat":
            waveform = waveform[:length].repeat(-(-samples // length))
        item[: min(samples, len(waveform))] = waveform[:samples]
    return fitted


@register_feature("mel", batch_size=4)
def mel(
    waveforms: Tensor,
    rate: int,
    lengths: Tensor,
    *,
    n_mels: int = 64,
    window_ms: float = 25.0,
    hop_ms: float = 10.0,
    f_min: float = 0.0,
    f_max: float | None = None,
    duration: float = 8.0,
    fit: str = "repeat",
) -> Tensor:
    """Log-mel spectrogram ``(batch, 1, n_mels, frames)`` in dB, floor -100 dB, at the native rate.

    Power spectrogram with a periodic Hann window, centred frames, zeros beyond the ends; triangular filters on the
    HTK mel scale; the FFT is zero-padded so far that every band holds a bin. ``frames = 1 + samples // hop``.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        n_mels: mel bands.
        window_ms, hop_ms: milliseconds.
        f_min, f_max: Hz, the range of the bands; f_max defaults to the Nyquist frequency.
        duration: seconds that every item is brought to; a longer one is cropped to its first seconds.
        fit: "repeat" repeats a shorter item, "pad" pads it with zeros.

    Raises:
        UserError: a parameter is out of its range.
    """
    choose("fit", fit, ("repeat", "pad"))
    for name, value, most in (("n_mels", n_mels, 4096), ("duration", duration, MAX_SECONDS)):
        if value > most:
            raise UserError(name, f"is {value}", f"choose at most {most}")
    for name, value in (("window_ms", window_ms), ("hop_ms", hop_ms)):
        if value > 1000 * duration > 0:
            raise UserError(name, f"is {value}, longer than all of an item", f"choose at most {1000 * duration:g}")
    window, hop, samples = (round(seconds * rate) for seconds in (window_ms / 1000, hop_ms / 1000, duration))
    for name, value in (("n_mels", n_mels), ("window_ms", window), ("hop_ms", hop), ("duration", samples)):
        if value < 1:
            raise UserError(name, f"is too small at {rate} Hz", "choose a larger one")
    top = rate / 2 if f_max is None else float(f_max)
    if not 0.0 <= f_min < top <= rate / 2:
        raise UserError("f_min, f_max", f"{f_min} to {top} Hz is no band", f"choose within 0 to {rate / 2:g} Hz")
    n_fft = fft_size(rate, window, n_mels, float(f_min), top)
    if n_fft * (samples // hop + 1) > _MOST_NUMBERS:
        what = f"{samples // hop + 1} frames of {n_fft} samples are too many"
        raise UserError("duration, hop_ms, n_mels, f_min, f_max", what, "choose fewer or wider bands, or a longer hop")
    power = power_spectrogram(fit_duration(waveforms, lengths, samples, fit), window, hop, n_fft)
    bands = mel_power(power, rate, n_fft, n_mels, float(f_min), top)
    return to_decibel(bands, POWER_FLOOR).transpose(1, 2).unsqueeze(1).contiguous()
