"""Any folder of audio files as batches."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from data_loader.folder import audio_files, file_groups, group_batches
from data_loader.frontend import Frontend
from data_loader.resp_data_loader import RespDataLoader
from utils.errors import UserError


def all_batches(files, spec, batch_size):
    for group in file_groups(files):
        yield from group_batches(files, group, spec, batch_size)


def test_files_are_found_at_any_depth_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.wav", "b/a.FLAC", "a.wav", "notes.txt", "b/._a.FLAC"):
        (tmp_path / name).write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path)] == ["a.wav", "b/a.FLAC", "c.wav"]


@pytest.mark.parametrize("make", [False, True])
def test_no_folder_and_an_empty_one_are_errors(tmp_path, make):
    folder = tmp_path / "x"
    if make:
        folder.mkdir()
    with pytest.raises(UserError, match=r"folder|no WAV"):
        audio_files(folder)


@pytest.mark.parametrize("options", [{"input_dir": "processed_stft"}, {"frontend": "stft"}, {"duration": 2.0}])
def test_a_folder_gives_the_same_input_as_the_data_set(tiny_data, options):
    loader = RespDataLoader(str(tiny_data), batch_size=5, task=2, level=1, **options)
    frontend = Frontend(loader.input_spec).eval()
    files = [tiny_data / path for path in loader.dataset.table["path"]]
    expected, found = {}, {}
    for batch in loader.evaluation("train"):
        expected |= zip(batch.index.tolist(), frontend(batch.data, batch.lengths), strict=True)
    for batch in all_batches(files, loader.input_spec, 5):
        found |= zip(batch.index.tolist(), frontend(batch.data, batch.lengths), strict=True)
    assert expected.keys() == found.keys()
    for index in expected:
        # A value on the border between two of 256 steps may fall on either side.
        difference = (expected[index] - found[index]).abs()
        assert difference.max() <= 1.01 / 255 / loader.input_spec.std
        assert difference.mean() < 1e-4


def test_a_file_of_another_rate_is_heard_as_at_the_rate_of_the_training(tiny_data, tmp_path):
    spec = RespDataLoader(str(tiny_data), task=2, input_dir="processed_stft").input_spec
    waveform, _ = soundfile.read(next((tiny_data / "BioCAS2022").rglob("*.wav")))
    soundfile.write(tmp_path / "0.wav", waveform, 8000)
    soundfile.write(tmp_path / "1.wav", resample_poly(waveform, 441, 80), 44100)
    (batch,) = all_batches(audio_files(tmp_path), spec, 8)
    then, now = batch.data.float()
    assert np.corrcoef(then.ravel(), now.ravel())[0, 1] > 0.98


def test_files_of_different_rates_are_taken(tiny_data, tmp_path):
    spec = RespDataLoader(str(tiny_data), task=2, input_dir="processed_stft").input_spec
    for number, rate in enumerate((8000, 16000, 44100)):
        soundfile.write(tmp_path / f"{number}.wav", np.random.default_rng(0).normal(0, 0.01, rate), rate)
    batches = list(all_batches(audio_files(tmp_path), spec, 8))
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == [0, 1, 2]
    assert all(batch.data.shape[1:] == (1, 224, 224) for batch in batches)
