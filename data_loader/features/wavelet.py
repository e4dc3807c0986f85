"""The wavelet picture: coefficients of the discrete wavelet transform in a square (arXiv 2208.13943)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_loader.features.bandpass import normalised_bandpass
from data_loader.features.feature import register_feature

SIZE = 224
WAVELET = "db8"
APPROXIMATIONS = 3
LEVELS = 6


def coefficients(signal: np.ndarray) -> np.ndarray:
    """``[cA6, cD6, ..., cD1]`` of the third approximation of `signal` ``(samples,)``, concatenated.

    The order is that of `pywt.wavedec`, the border handling pywt's default ("symmetric"). Single steps, because a
    short event has fewer useful levels than six and `wavedec` would warn of it.
    """
    import pywt

    approximation = pywt.downcoef("a", signal, WAVELET, level=APPROXIMATIONS)
    details = []
    for _ in range(LEVELS):
        approximation, detail = pywt.dwt(approximation, WAVELET)
        details.append(detail)
    return np.concatenate([approximation, *reversed(details)])


def _picture(values: Tensor) -> Tensor:
    """Coefficients ``(n,)``, scaled to [0, 1], row by row in the smallest square, resized to ``(224, 224)``."""
    low, high = values.aminmax()
    scaled = (values - low) / torch.where(high > low, high - low, 1.0)
    side = math.isqrt(len(values) - 1) + 1
    square = functional.pad(scaled, (0, side * side - len(values))).view(1, 1, side, side)
    # Where the square grows there is nothing to smooth, and the plain way is three times as fast.
    resized = functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=side > SIZE, align_corners=False)
    return resized[0, 0].clamp_(0.0, 1.0)


@register_feature("wavelet", unit_range=True, repeats=3, batch_seconds=20)
def wavelet(waveforms: Tensor, rate: int, lengths: Tensor) -> Tensor:
    """Picture of db8 wavelet coefficients ``(batch, 3, 224, 224)`` in [0, 1]; the three channels are the same.

    Min-max normalisation and band-pass as for `stft`; the third approximation of the DWT, decomposed in six levels
    (see `coefficients`), scaled to [0, 1] by its minimum and maximum, laid out row by row in the smallest square that
    holds it (the rest zero), resized (bilinear, antialiased where it shrinks). A constant gives zeros. The transform
    runs on the CPU whatever the device of the input.
    """
    filtered = normalised_bandpass(waveforms, rate, lengths).cpu().numpy()
    rows = zip(filtered, lengths.clamp(min=1).tolist(), strict=True)
    pictures = [_picture(torch.from_numpy(coefficients(row[:length]))) for row, length in rows]
    return torch.stack(pictures).to(waveforms.device).unsqueeze(1).expand(-1, 3, -1, -1)
