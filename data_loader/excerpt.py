"""Reading a part of an audio file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import soundfile

from data_loader.audio import cut_event, decode_frames, opened, read_audio, refuse_header
from utils.errors import UserError


def read_excerpt(path: Path, start_ms: int, end_ms: int) -> tuple[np.ndarray, int]:
    """The samples of an event and their rate: `read_audio` and `cut_event` in one.

    Of a file of one channel at 16 bits, no more is decoded than is wanted.

    Raises:
        UserError: see `read_audio`; what cannot be read beside the event is not noticed.
    """
    if end_ms >= 0:
        # What is amiss is left to read_audio, which says it; an event that the file is too short for as well.
        with contextlib.suppress(soundfile.SoundFileError, OSError, ValueError), soundfile.SoundFile(path) as file:
            rate = file.samplerate
            start, stop = round(start_ms * rate / 1000), round(end_ms * rate / 1000)
            if file.subtype == "PCM_16" and file.channels == 1 and start < stop:
                refuse_header(path, file.frames, rate, 1)
                file.seek(start)
                samples = file.read(stop - start, dtype="int16")
                if len(samples) == stop - start:
                    return np.multiply(samples, np.float32(1 / 32768), dtype=np.float32), rate
    recording, rate = read_audio(path)
    return cut_event(recording, rate, start_ms, end_ms), rate


def read_span(
    path: Path, start: float = 0.0, end: float | None = None, seconds: float | None = None, channels: int = 1
) -> tuple[np.ndarray, int]:
    """The samples of a part of a file and their rate; no more is decoded than is wanted, in any format.

    Args:
        start, end: seconds; an end of None, or behind the file's, is the file's.
        seconds: at most so many of them.
        channels: see `decode_frames`.

    Returns:
        ``(samples,)`` or ``(channels, samples)`` float32, and samples a second.

    Raises:
        UserError: see `read_audio`; or the file ends before the part begins.
    """
    with opened(path) as file:
        rate = file.samplerate
        first = round(start * rate)
        last = file.frames if end is None else min(round(end * rate), file.frames)
        if first >= file.frames > 0:
            raise UserError(path, f"ends at {file.frames / rate:.3f} s, before its sound at {start:g} s begins")
        # Of a sound shorter than a sample, one.
        wanted = max(last - first, 1)
        if seconds is not None:
            wanted = min(wanted, max(round(seconds * rate), 1))
        file.seek(first)
        return decode_frames(path, file, wanted, channels), rate
