from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from data_loader import folder as audio_folder
from data_loader.audio import read_audio
from data_loader.encoding import encode
from tests.tiny import ROOT, tiny_run
from trainer.evaluation import evaluate
from trainer.folder_prediction import predict_folder, write_predictions
from trainer.trained import load_trained
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A network for task 2-2, trained a little."""
    changes = {"data_loader__args__task": 2, "data_loader__args__level": 2, "arch__args__label_dim": 5}
    changes |= {"data_loader__args__balance": "oversample", "metrics": ["score_task2"]}
    run = tiny_run(tiny_data, tmp_path_factory.mktemp("saved"), trainer__epochs=3, **changes)
    run.train()
    return load_trained(run.to_test(), CPU)


@pytest.fixture
def threads():
    """torch.set_num_threads; the number is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_folder_of_the_same_audio_gets_the_same_predictions(tiny_data, trained, tmp_path):
    folder = tiny_data / "BioCAS2022" / "train2022_wav"
    predictions = predict_folder(trained, folder, batch_size=5)
    stored = [evaluate(trained, split).predictions for split in ("train", "valid")]
    expected = {row.wav_name: row.prediction for table in stored for row in table.itertuples()}
    assert len(predictions) == 18
    assert predictions == expected
    assert len(set(predictions.values())) > 1
    write_predictions(predictions, tmp_path / "deep" / "out.json")
    assert json.loads((tmp_path / "deep" / "out.json").read_text()) == expected


def test_a_network_that_diverged_predicts_nothing(tiny_data, trained):
    folder = tiny_data / "BioCAS2022" / "test2022_wav"
    broken = copy.deepcopy(trained.model)
    broken.linear.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"gives no finite number for .*wav"):
        predict_folder(dataclasses.replace(trained, model=broken), folder)


def test_a_folder_may_have_folders_and_other_files(tiny_data, trained, tmp_path):
    wavs = sorted((tiny_data / "BioCAS2022" / "train2022_wav").glob("*.wav"))
    (tmp_path / "b").mkdir()
    shutil.copy(wavs[0], tmp_path / "z.wav")
    shutil.copy(wavs[1], tmp_path / "b" / "a.WAV")
    (tmp_path / "notes.txt").write_text("no audio")
    assert list(predict_folder(trained, tmp_path)) == ["b/a.WAV", "z.wav"]


def test_waveform_models_predict_folders_too(tiny_data, tmp_path):
    changes = {"input_dir": None, "frontend": "stft", "duration": 1.0, "task": 2}
    changes = {f"data_loader__args__{key}": value for key, value in changes.items()}
    run = tiny_run(tiny_data, tmp_path, trainer__epochs=1, metrics=[], arch__args__label_dim=3, **changes)
    run.train()
    trained = load_trained(run.to_test(), CPU)
    stored = [evaluate(trained, split).predictions for split in ("train", "valid")]
    expected = {row.wav_name: row.prediction for table in stored for row in table.itertuples()}
    assert predict_folder(trained, tiny_data / "BioCAS2022" / "train2022_wav", batch_size=4) == expected


def test_predictions_of_a_broken_file_name_it(trained, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"broken\.wav"):
        predict_folder(trained, tmp_path)


def test_predictions_that_cannot_be_written_are_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_predictions({}, tmp_path / "file" / "out.json")


def test_predicting_a_folder_imports_nothing_slow_but_torch(tiny_data, trained, tmp_path):
    code = (
        "import sys; from tests.tiny import run; status = run('test', *sys.argv[1:]);"
        "print({'pandas', 'sklearn', 'matplotlib', 'torchaudio', 'transformers', 'timm'} & sys.modules.keys());"
        "sys.exit(status)"
    )
    words = ["-r", trained.path, "--wav", tiny_data / "BioCAS2022" / "train2022_wav", "--out", tmp_path / "p.json"]
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("batch_size", "group_files"), [(1, 32), (4, 5), (32, 2)])
def test_neither_batches_nor_threads_change_a_prediction(
    tiny_data, trained, threads, monkeypatch, n_threads, batch_size, group_files
):
    wavs = tiny_data / "BioCAS2022" / "train2022_wav"
    expected = predict_folder(trained, wavs)
    monkeypatch.setattr(audio_folder, "_GROUP_FILES", group_files)
    threads(n_threads)
    assert predict_folder(trained, wavs, batch_size) == expected
    assert torch.get_num_threads() == n_threads


def test_features_are_computed_in_single_precision_whatever_the_model_computes_in(tiny_data, trained, monkeypatch):
    lowered = []

    def spy(features, *args):
        lowered.append(torch.is_autocast_enabled("cpu"))
        return encode(features, *args)

    monkeypatch.setattr(audio_folder, "encode", spy)
    wavs = tiny_data / "BioCAS2022" / "train2022_wav"
    assert len(predict_folder(dataclasses.replace(trained, precision="bf16"), wavs)) == 18
    assert lowered
    assert not any(lowered)


def test_no_more_files_than_a_group_a_thread_are_in_memory(tiny_data, trained, threads, monkeypatch):
    class Counted(np.ndarray):
        alive = most = 0

        def __del__(self):
            Counted.alive -= self.base is None

    def counting(path, channels):
        samples, rate = read_audio(path, channels)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        counted = np.ndarray.__new__(Counted, samples.shape, samples.dtype)
        counted[:] = samples
        return counted, rate

    monkeypatch.setattr(audio_folder, "read_audio", counting)
    monkeypatch.setattr(audio_folder, "_GROUP_FILES", 2)
    threads(2)
    assert len(predict_folder(trained, tiny_data / "BioCAS2022" / "train2022_wav")) == 18
    assert 2 <= Counted.most <= 4
