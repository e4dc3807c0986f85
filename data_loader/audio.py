"""Reading audio files."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from utils.errors import UserError

MAX_SECONDS = 3600.0
# 200 MB at 16 bits: a FLAC file of silence may claim a thousand times its size.
MAX_VALUES = 100_000_000
MIN_RATE, MAX_RATE = 100, 1_000_000
# A resampling filter grows with the terms of the reduced ratio of two rates: 8001 to 16000 Hz would take 500 MB.
_MAX_TERM = 1000
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


@contextlib.contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """An audio file, open, that its header does not make unusable; what goes wrong while reading it is a UserError.

    Raises:
        UserError: the file is no audio, is cut short, or see `refuse_header`.
    """
    try:
        with soundfile.SoundFile(path) as file:
            frames, channels = file.frames, file.channels
            sample_bytes = _SAMPLE_BYTES.get(file.subtype) if file.format in _RIFF_FORMATS else None
            if sample_bytes and _declared_data_bytes(path) > frames * channels * sample_bytes:
                raise UserError(path, "is cut short: its header promises more audio than there is", "fetch it again")
            refuse_header(path, frames, file.samplerate, channels)
            yield file
    except soundfile.LibsndfileError as error:
        # Its text without the path, which stands in front already.
        raise UserError(path, f"is not a readable audio file: {error.error_string.rstrip('.')}") from error
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
        raise UserError(path, f"is not a readable audio file: {error}") from error


def read_audio(path: Path, channels: int = 1) -> tuple[np.ndarray, int]:
    """Decode an audio file.

    Args:
        channels: 1 averages all channels of the file, more see `decode_frames`.

    Returns:
        The waveform, ``(samples,)`` or ``(channels, samples)`` float32 in [-1, 1], and its rate in samples a second.

    Raises:
        UserError: the file cannot be decoded to its end, or holds a sample that is not finite.
    """
    with opened(path) as file:
        return decode_frames(path, file, file.frames, channels), file.samplerate


def decode_frames(path: Path, file: soundfile.SoundFile, frames: int, channels: int = 1) -> np.ndarray:
    """The next `frames` frames of an open file.

    Args:
        channels: 1 averages all channels of the file. With more, a file of one channel is repeated, and of a file of
            more the first ones are taken.

    Returns:
        ``(frames,)`` or ``(channels, frames)`` float32 in [-1, 1], contiguous.

    Raises:
        UserError: there are fewer, none, or samples that are not finite; the file has too few channels.
    """
    # 16-bit samples are scaled here: libsndfile takes twice as long for it, to the same numbers.
    narrow = file.subtype == "PCM_16"
    samples = file.read(frames, dtype="int16" if narrow else "float32", always_2d=True)
    if len(samples) == 0:
        raise UserError(path, "holds no audio")
    if len(samples) < frames:
        raise UserError(path, f"is cut short: {len(samples)} of {frames} samples can be read", "fetch it again")
    if narrow:
        samples = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
    given = samples.shape[1]
    if channels > 1:
        if 1 < given < channels:
            raise UserError(path, f"has {given} channels, of {channels} that are wanted", "take fewer channels")
        taken = samples[:, :channels].T if given > 1 else np.broadcast_to(samples.T, (channels, frames))
    else:
        taken = samples[:, 0] if given == 1 else samples.mean(axis=1)
    if not narrow and not np.isfinite(taken).all():
        raise UserError(path, "holds samples that are not finite numbers")
    return np.ascontiguousarray(taken)


def refuse_header(path: Path, frames: int, rate: int, channels: int) -> None:
    """Refuse what is no recording by its header, before memory is taken for it.

    Raises:
        UserError: the rate is out of range or cannot be resampled, or the recording is too long.
    """
    if not MIN_RATE <= rate <= MAX_RATE:
        hint = f"expected {MIN_RATE} to {MAX_RATE} Hz: is the header damaged?"
        raise UserError(path, f"has the sampling rate {rate} Hz", hint)
    if rate // math.gcd(rate, 8000) > _MAX_TERM:
        what = f"has the sampling rate {rate} Hz, which has too little in common with others to be resampled"
        raise UserError(path, what, "bring it to 8000 Hz; or is the header damaged?")
    if frames / rate > MAX_SECONDS:
        raise UserError(path, f"is longer than an hour ({frames / rate:.0f} s)", "cut it into recordings")
    if frames * channels > MAX_VALUES:
        raise UserError(path, f"holds {frames} samples in {channels} channels", "cut it into recordings")


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
