"""Min-max normalisation and the band-pass filter that the stft and wavelet features start from."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_loader.features.common import is_valid

ORDER = 3
LOW_HZ = 1.0
HIGH_HZ = 3999.0
# Samples a block: the filter is a matrix product inside a block and a recursion of its state from block to block.
BLOCK = 128


def design(rate: int) -> np.ndarray:
    """Second-order sections of the Butterworth band-pass, 1 Hz to 3999 Hz or 1 Hz below the Nyquist frequency."""
    from scipy.signal import butter

    return butter(ORDER, [LOW_HZ, min(HIGH_HZ, rate / 2 - 1.0)], "bandpass", fs=rate, output="sos")


@functools.lru_cache(maxsize=8)
def _block_filter(rate: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The filter as matrices over blocks: ``y = x @ forced + s @ free``, ``next s = x @ gain + s @ step``."""
    from scipy.signal import sosfilt

    sos = design(rate)
    n_states = 2 * len(sos)
    none = np.zeros((len(sos), BLOCK, 2))
    forced, gain = sosfilt(sos, np.eye(BLOCK), zi=none)
    unit = np.eye(n_states).reshape(n_states, len(sos), 2).transpose(1, 0, 2)
    free, step = sosfilt(sos, np.zeros((n_states, BLOCK)), zi=unit)
    gain = gain.transpose(1, 0, 2).reshape(BLOCK, n_states)
    step = step.transpose(1, 0, 2).reshape(n_states, n_states)
    return torch.from_numpy(forced).float(), torch.from_numpy(free), torch.from_numpy(gain), torch.from_numpy(step)


def _filter(waveforms: Tensor, rate: int) -> Tensor:
    """The causal filter from the zero state; ``(batch, samples)`` float32 to the same.

    The poles lie within 0.001 of the unit circle, so that the states need float64; the rest does not. Equal to
    scipy.signal.sosfilt, but parallel over time and on any device.
    """
    forced, free, gain, step = (matrix.to(waveforms.device) for matrix in _block_filter(rate))
    n_samples = waveforms.shape[1]
    blocks = functional.pad(waveforms, (0, -n_samples % BLOCK)).unflatten(1, (-1, BLOCK))
    filtered = blocks @ forced
    states = blocks[:, :-1].double() @ gain
    # Inclusive scan of s[b] = u[b] + s[b - 1] @ step by doubling: after each turn a state sums twice as many blocks.
    reach = 1
    while reach < states.shape[1]:
        states[:, reach:] = states[:, reach:] + states[:, :-reach] @ step
        step = step @ step
        reach *= 2
    filtered[:, 1:] += (states @ free).float()
    return filtered.flatten(1)[:, :n_samples]


def normalised_bandpass(waveforms: Tensor, rate: int, lengths: Tensor) -> Tensor:
    """Scale each item to [0, 1] by its minimum and maximum, then band-pass it.

    The filter starts in its steady state for the first sample, so that the offset which the scaling adds makes no
    step: a band-pass has no gain at 0 Hz, so this is the filter of ``x - x[0]`` from the zero state. A constant
    gives zeros.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.

    Returns:
        ``(batch, samples)`` float32, zero behind each length.
    """
    padding = ~is_valid(lengths.clamp(min=1), waveforms.shape[1])
    shifted = (waveforms - waveforms[:, :1]).masked_fill_(padding, 0.0)
    low, high = shifted.aminmax(dim=1, keepdim=True)
    span = high - low
    return _filter(shifted / torch.where(span > 0, span, 1.0), rate).masked_fill_(padding, 0.0)
