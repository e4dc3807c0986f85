"""Log-mels of three time resolutions, each recording normalised by its own median; events in their surroundings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_loader.audio import MAX_SECONDS
from data_loader.features.common import mel_power, power_spectrogram, resample
from data_loader.features.feature import register_feature
from utils.errors import UserError

RATE = 8000
WINDOWS = (128, 320, 800)  # samples: 16, 40 and 100 ms
HOP, N_FFT = 100, 1024
HOP_MS = 1000 * HOP / RATE
BANDS, LOW_HZ, HIGH_HZ = 64, 40.0, 2000.0
# SPRSound's RMS is about 0.008: a floor of 1e-5, as is usual, would erase most of the signal.
POWER_FLOOR = 1e-11
# Nepers of power below and above the median that the stored 8 bits span.
BELOW, ABOVE = 4.0, 10.0
_LEAST_SECONDS = 0.1


def _log_mels(waveforms: Tensor) -> Tensor:
    """``(batch, 3, 64, 1 + samples // 100)`` natural logarithms of power at 8 kHz, a window's energy divided out."""
    channels = []
    for window in WINDOWS:
        energy = 0.375 * window  # of a Hann window
        power = power_spectrogram(waveforms, window, HOP, N_FFT)
        mels = mel_power(power, RATE, N_FFT, BANDS, LOW_HZ, HIGH_HZ)
        channels.append((mels.div_(energy) + POWER_FLOOR).log_())
    return torch.stack(channels, dim=1).transpose(2, 3)


def _canvas(waveforms: Tensor, rate: int, lengths: Tensor, spans: Tensor, frames: int, centred: bool) -> Tensor:
    """``(batch, 4, 64, frames)`` in [0, 1] of what lies around each span, or from the start of each recording."""
    # The events of one recording come one after the other: its log-mels serve them all.
    differs = [True, *(waveforms[1:] != waveforms[:-1]).any(dim=1).logical_or(lengths[1:] != lengths[:-1]).tolist()]
    firsts = [row for row, new in enumerate(differs) if new]
    numbers = (torch.tensor(differs).cumsum(0) - 1).tolist()
    of_recordings, its_lengths = resample(waveforms[firsts], rate, RATE, lengths[firsts])
    recordings = [
        _levels(own, length) for own, length in zip(_log_mels(of_recordings), its_lengths.tolist(), strict=True)
    ]
    canvas = waveforms.new_full((len(waveforms), len(WINDOWS) + 1, BANDS, frames), BELOW / (BELOW + ABOVE))
    canvas[:, -1] = 0.0
    # In frames; the last of an item is the one that its last sample is nearest to.
    bounds = (spans.double() * (RATE / rate / HOP)).round().long().tolist()
    for item, number, (first, last) in zip(canvas, numbers, bounds, strict=True):
        levels = recordings[number]
        # Where the canvas begins in the recording; before its start if negative.
        start = (first + last) // 2 - frames // 2 if centred else 0
        here = slice(max(start, 0), min(start + frames, levels.shape[2]))
        there = slice(here.start - start, here.stop - start)
        if here.start < here.stop:
            item[:-1, :, there] = levels[..., here]
        # An event of a few milliseconds is one frame.
        item[-1, :, max(first - start, 0) : max(last, first + 1) - start] = 1.0
    return canvas


def _levels(mels: Tensor, length: int) -> Tensor:
    """``(3, 64, 1 + length // 100)`` in [0, 1]: log-mels of a recording minus each band's median over it."""
    mels = mels[..., : 1 + length // HOP]
    levels = mels - mels.median(dim=-1, keepdim=True).values
    return levels.add_(BELOW).div_(BELOW + ABOVE).clamp_(0.0, 1.0)


def _frames(duration: float) -> int:
    if not _LEAST_SECONDS <= duration <= MAX_SECONDS:
        raise UserError("duration", f"is {duration}", f"choose {_LEAST_SECONDS} to {MAX_SECONDS:g} seconds")
    return math.ceil(duration * RATE / HOP)


@register_feature(
    "multimel_event",
    unit_range=True,
    batch_size=8,
    in_context=True,
    tasks=(1,),
    span_hop_ms=HOP_MS,
    resamples=True,
)
def multimel_event(waveforms: Tensor, rate: int, lengths: Tensor, spans: Tensor, *, duration: float = 2.4) -> Tensor:
    """An event in its surroundings: ``(batch, 4, 64, frames)`` in [0, 1].

    There are ``ceil(80 duration)`` frames, 192 for 2.4 s. Channels 0 to 2 are log-mels of the recording with Hann
    windows of 16, 40 and 100 ms (n_fft 1024, hop 12.5 ms, 64 HTK bands from 40 to 2,000 Hz, power divided by the
    window's energy, floor 1e-11), minus each band's median over the recording, -4 to 10 nepers scaled to [0, 1]. The
    canvas is centred on the event and never stretched: the event's duration tells a wheeze from a breath. Beyond the
    recording's ends it has the median. Channel 3 is 1 within the event and 0 around it.

    Args:
        waveforms: ``(batch, samples)`` float32, whole recordings.
        rate: samples a second; other rates are brought to 8 kHz.
        lengths: ``(batch,)`` int64.
        spans: ``(batch, 2)`` int64, the first sample of the event and the one behind it.
        duration: seconds of the canvas; of a longer event its middle is seen.

    Raises:
        UserError: a parameter is out of its range.
    """
    return _canvas(waveforms, rate, lengths, spans, _frames(duration), centred=True)


@register_feature("multimel", unit_range=True, batch_size=8, tasks=(2,), span_hop_ms=HOP_MS, resamples=True)
def multimel(waveforms: Tensor, rate: int, lengths: Tensor, *, duration: float = 15.4) -> Tensor:
    """A recording: ``(batch, 4, 64, frames)`` in [0, 1].

    There are ``ceil(80 duration)`` frames, 1232 for 15.4 s. Channels 0 to 2 are as in `multimel_event`; channel 3 is 1
    within the recording and 0 behind its end.

    Args:
        waveforms: ``(batch, samples)`` float32.
        rate: samples a second; other rates are brought to 8 kHz.
        lengths: ``(batch,)`` int64.
        duration: seconds; a longer recording is cut.

    Raises:
        UserError: a parameter is out of its range.
    """
    spans = torch.stack([torch.zeros_like(lengths), lengths], dim=1)
    return _canvas(waveforms, rate, lengths, spans, _frames(duration), centred=False)
