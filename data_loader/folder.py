"""Any folder of audio files, without annotations, as batches like those of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from data_loader.audio import read_audio
from data_loader.batching import GPU_BATCH_SECONDS, Batch, collate_resp, similar_batches, to_rate
from data_loader.encoding import encode
from data_loader.features import methods
from data_loader.frontend import InputSpec
from data_loader.sound_files import sounds_below
from utils.errors import UserError

# Files that are in memory together: some batches' worth, and no more than so many bytes of them.
_GROUP_FILES = 16
_GROUP_BYTES = 16_000_000


def audio_files(folder: Path) -> list[Path]:
    """All audio files below a folder, see `sounds_below`.

    Raises:
        UserError: it is no folder, or holds no such file.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "there is no such folder"
        raise UserError(folder, what, "name the folder that holds the audio files")
    files = sounds_below(folder)
    if not files:
        raise UserError(folder, "holds no WAV, FLAC, OGG or MP3 file")
    return files


def file_groups(files: Sequence[Path]) -> list[range]:
    """Which of the files to take together, in order; each group is small enough for memory."""
    groups = []
    start = size = 0
    for number, path in enumerate(files):
        try:
            its_size = path.stat().st_size
        except OSError as error:
            raise UserError(path, f"is not a readable audio file: {error.strerror}") from error
        if number > start and (number - start == _GROUP_FILES or size + its_size > _GROUP_BYTES):
            groups.append(range(start, number))
            start, size = number, 0
        size += its_size
    return [*groups, range(start, len(files))]


def group_batches(
    files: Sequence[Path], group: range, spec: InputSpec, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Batches of a group of audio files, as `spec` says the model was trained; `index` counts in `files`.

    Features are rounded as the store rounds them.

    Args:
        device: where to compute features; the batches are on the CPU.

    Raises:
        UserError: a file cannot be read.
    """
    waveforms = [read_audio(files[number], spec.channels) for number in group]
    features = _features(files, group, waveforms, spec, torch.device(device)) if spec.input_dir is not None else None
    at_least = round(spec.duration * spec.rate) if spec.duration else 0
    for start in range(0, len(group), batch_size):
        rows = range(len(group))[start : start + batch_size]
        if features is not None:
            index = torch.tensor(group[start : start + batch_size])
            yield Batch(torch.from_numpy(features[rows.start : rows.stop]), torch.zeros_like(index), index)
        else:
            samples = [(to_rate(*waveforms[row], spec.rate, spec.duration), 0, group[row]) for row in rows]
            yield collate_resp(samples, at_least, spec.channels)


def _features(
    files: Sequence[Path],
    group: range,
    waveforms: Sequence[tuple[np.ndarray, int]],
    spec: InputSpec,
    device: torch.device,
) -> np.ndarray:
    """``(waveforms, ...)`` as a store would hold them."""
    feature = methods.lookup(spec.method, "method")
    shape = (spec.shape[0] // feature.repeats, *spec.shape[1:])
    seconds = feature.batch_seconds if device.type == "cpu" else GPU_BATCH_SECONDS
    features = np.empty((len(waveforms), *shape), dtype=np.uint8 if feature.unit_range else np.float16)
    if spec.rate is not None:
        # Else the same frequency would lie elsewhere in the features than in training.
        waveforms = [(to_rate(*waveform, spec.rate, None).numpy(), spec.rate) for waveform in waveforms]
    for rows, batch, lengths, rate in similar_batches(waveforms, feature.batch_size, seconds):
        with torch.inference_mode():
            computed = feature(batch.to(device), rate, lengths, **spec.params)
        stored = encode(computed, feature.unit_range, feature.repeats)
        if stored.shape[1:] != shape:
            what = f"its feature {spec.method} has the shape {stored.shape[1:]} at {rate} Hz, the model takes {shape}"
            raise UserError(files[group[rows[0]]], what, "resample it")
        features[rows] = stored
    return features
