"""Reading audio files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils.errors import UserError

MAX_SECONDS = 3600.0
_RIFF_FORMATS = ("WAV", "WAVEX")
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}


@dataclass(frozen=True)
class AudioInfo:
    """What a check of a file found: samples, rate in samples a second, and a digest of the file's bytes."""

    frames: int
    rate: int
    digest: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def check_audio(path: Path) -> AudioInfo:
    """Decode a file to its end and take its digest.

    Raises:
        UserError: see `read_audio`.
    """
    waveform, rate = read_audio(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return AudioInfo(len(waveform), rate, digest)


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """Decode an audio file.

    Returns:
        The waveform, ``(samples,)`` float32 in [-1, 1], channels averaged to mono, and its rate in samples a second.

    Raises:
        UserError: the file cannot be decoded to its end, or holds a sample that is not finite.
    """
    try:
        with soundfile.SoundFile(path) as file:
            frames, rate, channels = file.frames, file.samplerate, file.channels
            sample_bytes = _SAMPLE_BYTES.get(file.subtype) if file.format in _RIFF_FORMATS else None
            if sample_bytes and _declared_data_bytes(path) > frames * channels * sample_bytes:
                raise UserError(path, "is cut short: its header promises more audio than there is", "fetch it again")
            if frames / rate > MAX_SECONDS:
                raise UserError(path, f"is longer than an hour ({frames / rate:.0f} s)", "cut it into recordings")
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        # Its text without the path, which stands in front already.
        raise UserError(path, f"is not a readable audio file: {error.error_string.rstrip('.')}") from error
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
        raise UserError(path, f"is not a readable audio file: {error}") from error
    if len(samples) == 0:
        raise UserError(path, "holds no audio")
    if len(samples) < frames:
        raise UserError(path, f"is cut short: {len(samples)} of {frames} samples can be read", "fetch it again")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise UserError(path, "holds samples that are not finite numbers")
    return np.ascontiguousarray(mono), rate


def cut_event(recording: np.ndarray, rate: int, start_ms: int, end_ms: int) -> np.ndarray:
    """The samples of an event: times in milliseconds, the end exclusive, -1 for the end of the recording."""
    if end_ms < 0:
        return recording
    start = min(round(start_ms * rate / 1000), len(recording) - 1)
    return recording[start : max(round(end_ms * rate / 1000), start + 1)]


def _declared_data_bytes(path: Path) -> int:
    """The size of the data chunk as a RIFF header declares it; 0 where it cannot be told.

    libsndfile shortens the length of a cut file silently, so the header has to be asked directly.
    """
    with path.open("rb") as file:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                # A streaming writer leaves the size at its greatest value: it promises nothing.
                return size if size < 0xFFFFFF00 else 0
            file.seek(size + size % 2, 1)
    return 0
