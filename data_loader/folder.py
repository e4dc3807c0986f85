"""Any folder of audio files, without annotations, as batches like those of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from data_loader.audio import read_audio
from data_loader.batching import similar_batches
from data_loader.dataset import Batch, collate_resp, to_rate
from data_loader.features import methods
from data_loader.frontend import InputSpec
from data_loader.layout import AUDIO_SUFFIXES
from data_loader.store import encode
from utils.errors import UserError

_FILES_AT_ONCE = 256


def audio_files(folder: Path) -> list[Path]:
    """All WAV and FLAC files below a folder, sorted; hidden ones, which macOS leaves in archives, are left out.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise UserError(folder, "there is no such folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    files = sorted(path for path in found if not path.name.startswith("."))
    if not files:
        raise UserError(folder, "holds no WAV or FLAC file")
    return files


def folder_batches(files: list[Path], spec: InputSpec, batch_size: int) -> Iterator[Batch]:
    """Batches of audio files, as `spec` says the model was trained; `index` counts in `files`.

    A bounded number of files is in memory at a time. Features are rounded as the store rounds them.

    Raises:
        UserError: a file cannot be read.
    """
    for start in range(0, len(files), _FILES_AT_ONCE):
        waveforms = [read_audio(path) for path in files[start : start + _FILES_AT_ONCE]]
        if spec.input_dir is None:
            yield from _waveform_batches(waveforms, start, spec, batch_size)
        else:
            yield from _feature_batches(waveforms, start, spec, batch_size)


def _feature_batches(waveforms: list, start: int, spec: InputSpec, batch_size: int) -> Iterator[Batch]:
    feature = methods.lookup(spec.method, "method")
    for rows, batch, lengths, rate in similar_batches(waveforms, min(batch_size, feature.batch_size)):
        with torch.inference_mode():
            features = feature(batch, rate, lengths, **spec.params)
        data = torch.from_numpy(encode(features, feature.unit_range, feature.repeats))
        yield Batch(data, torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows) + start)


def _waveform_batches(waveforms: list, start: int, spec: InputSpec, batch_size: int) -> Iterator[Batch]:
    at_least = round(spec.duration * spec.rate) if spec.duration else 0
    for first in range(0, len(waveforms), batch_size):
        few = waveforms[first : first + batch_size]
        samples = [
            (to_rate(waveform, rate, spec.rate, spec.duration), 0, start + first + row)
            for row, (waveform, rate) in enumerate(few)
        ]
        yield collate_resp(samples, at_least)
