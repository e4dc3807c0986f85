"""Min-max normalisation and the band-pass filter that the stft and wavelet features start from."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from data_loader.features.common import zero_behind

ORDER = 3
LOW_HZ = 1.0
HIGH_HZ = 3999.0
# Samples a block, and blocks a group: inside a block the filter is a matrix product, inside a group of blocks so is
# the recursion of its state; only from group to group is a scan left. These sizes were the fastest on CPU.
BLOCK = 64
GROUP = 8


def design(rate: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Zeros, poles and gain of the Butterworth band-pass, 1 Hz to 3999 Hz or 1 Hz below the Nyquist frequency."""
    from scipy.signal import butter

    return butter(ORDER, [LOW_HZ, min(HIGH_HZ, rate / 2 - 1.0)], "bandpass", fs=rate, output="zpk")


def _modes(rate: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The filter as a sum over its poles.

    ``y[n] = gain x[n] + Re sum_i c_i s_i[n]`` with ``s_i[n+1] = p_i s_i[n] + x[n]``. The poles lie within 0.001 of the
    unit circle and of each other; in this form, unlike in sections, no large numbers cancel.

    Returns:
        The poles ``p`` with no negative imaginary part, their factors ``c``, and the gain.
    """
    zeros, poles, gain = design(rate)
    # H(z) = gain (1 + sum_i r_i / (z - p_i)), as many zeros as poles.
    others = poles[:, None] - np.where(np.eye(len(poles), dtype=bool), np.inf, poles[None, :])
    distance = np.where(np.isfinite(others), others, 1.0)
    factors = gain * np.prod(poles[:, None] - zeros[None, :], axis=1) / np.prod(distance, axis=1)
    real = np.abs(poles.imag) < 1e-12
    poles, upper = np.where(real, poles.real, poles), poles.imag >= 1e-12
    # A conjugate pair is twice the real part of one of the two.
    return (
        np.concatenate([poles[upper], poles[real]]),
        np.concatenate([2 * factors[upper], factors[real]]),
        float(gain),
    )


@functools.lru_cache(maxsize=8)
def _block_filter(rate: int) -> tuple[Tensor, ...]:
    """The filter as matrices, float32.

    Returns:
        inside: ``(BLOCK, BLOCK + states)``. ``x @ inside`` of a block is what `x` alone gives, and what it
            adds to the state at the block's end.
        free: ``(states, BLOCK)``, what the state at a block's start gives in it.
        local: ``(GROUP * states, GROUP * states)``: from the additions of a group's blocks to the states at
            their ends, from the zero state.
        spread: ``(states, GROUP * states)``, from the state before a group to those at its blocks' ends.
        leap: ``(states, states)``, the last block of `spread`.
    """
    poles, factors, gain = _modes(rate)
    steps = np.arange(BLOCK)
    powers = poles[:, None] ** np.arange(BLOCK + 1)
    response = np.concatenate([[gain], (factors @ powers[:, : BLOCK - 1]).real])
    lag = steps[None, :] - steps[:, None]
    forced = np.where(lag >= 0, response[np.abs(lag)], 0.0)
    # A complex state is two real ones, its real and its imaginary part; that of a real pole is one.
    used = np.concatenate([np.full(len(poles), True), poles.imag > 0])
    adds = powers[:, BLOCK - 1 :: -1].T
    inside = np.concatenate([forced, np.concatenate([adds.real, adds.imag], axis=1)[:, used]], axis=1)
    free = factors[:, None] * powers[:, :BLOCK]
    free = np.concatenate([free.real, -free.imag])[used]
    step = poles**BLOCK

    def real_form(diagonal: np.ndarray) -> np.ndarray:
        """Multiplication by complex numbers as a matrix on ``[real parts, imaginary parts]``."""
        real, imaginary = np.diag(diagonal.real), np.diag(diagonal.imag)
        return np.block([[real, imaginary], [-imaginary, real]])[np.ix_(used, used)]

    states = len(free)
    local = np.zeros((GROUP, states, GROUP, states))
    for source in range(GROUP):
        for target in range(source, GROUP):
            local[source, :, target] = real_form(step ** (target - source))
    spread = np.concatenate([real_form(step ** (target + 1)) for target in range(GROUP)], axis=1)
    matrices = (inside, free, local.reshape(GROUP * states, -1), spread, spread[:, -states:])
    return tuple(torch.from_numpy(np.ascontiguousarray(matrix)).float() for matrix in matrices)


def _filter(waveforms: Tensor, rate: int, filtered: Tensor) -> None:
    """The causal filter from the zero state, ``(batch, samples)`` float32 written into `filtered`.

    Both are whole groups of blocks long. Equal to scipy.signal.sosfilt, but parallel over time and on any device.
    """
    inside, free, local, spread, leap = (matrix.to(waveforms.device) for matrix in _block_filter(rate))
    n_states = len(free)
    alone, added = (waveforms.unflatten(1, (-1, BLOCK)) @ inside).split([BLOCK, n_states], dim=2)
    groups = added.reshape(len(waveforms), -1, GROUP * n_states)
    states = groups @ local
    # Inclusive scan of g[b] = ends[b] + g[b - 1] @ leap by doubling: each turn, a state sums twice as many groups.
    ends = states[:, :, -n_states:].contiguous()
    reach = 1
    while reach < ends.shape[1]:
        ends[:, reach:] = ends[:, reach:] + ends[:, :-reach] @ leap
        leap = leap @ leap
        reach *= 2
    states[:, 1:] += ends[:, :-1] @ spread
    before = states.unflatten(2, (GROUP, n_states)).flatten(1, 2)[:, :-1]
    blocks = filtered.unflatten(1, (-1, BLOCK))
    blocks[:, 0] = alone[:, 0]
    torch.add(alone[:, 1:], before @ free, out=blocks[:, 1:])


def normalised_bandpass(waveforms: Tensor, rate: int, lengths: Tensor, border: int = 0) -> Tensor:
    """Scale each item to [0, 1] by its minimum and maximum, then band-pass it.

    The filter starts in its steady state for the first sample, so that the offset which the scaling adds makes no
    step: a band-pass has no gain at 0 Hz, so this is the filter of ``x - x[0]`` from the zero state. A constant
    gives zeros.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second.
        lengths: ``(batch,)`` int64.
        border: zeros to put on either side, which saves a copy to who frames the result.

    Returns:
        ``(batch, border + samples + border)`` float32, zero behind each length.
    """
    batch, n_samples = waveforms.shape
    size = -(-n_samples // (BLOCK * GROUP)) * BLOCK * GROUP
    scaled = waveforms.new_zeros(batch, size)
    torch.sub(waveforms, waveforms[:, :1], out=scaled[:, :n_samples])
    zero_behind(scaled, lengths)
    # Not aminmax, twenty times slower along an axis. The first sample is zero, as is what lies behind an item.
    span = scaled.amax(dim=1, keepdim=True) - scaled.amin(dim=1, keepdim=True)
    scaled *= torch.where(span > 0, 1.0 / span, 0.0)
    result = waveforms.new_zeros(batch, border + size + border)
    _filter(scaled, rate, result[:, border : border + size])
    return zero_behind(result, border + lengths)[:, : border + n_samples + border]
