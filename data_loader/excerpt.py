"""Reading a part of an audio file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import soundfile

from data_loader.audio import cut_event, read_audio, refuse_header


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
