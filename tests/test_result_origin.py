"""What a result says: all that is needed to repeat it, and that it is not of other data, features or classes."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import platform
import shlex
import shutil

import numpy as np
import pytest
import soundfile
import torch

from data_loader.dataset import RespDataset
from tests.tiny import run, tiny_config, tiny_run, write_config
from utils.checkpoint import load_checkpoint
from utils.config import set_key
from utils.versions import git_commit

WAVEFORMS = {"data_loader__args__input_dir": None, "data_loader__args__frontend": "stft"}


@pytest.fixture
def make(tmp_path, own_data):
    """Writes a config for the own data; gives train.py's arguments."""

    def make(**changes):
        return "-c", write_config(tmp_path / "config.json", tiny_config(own_data, tmp_path / "saved", **changes))

    return make


@pytest.fixture(params=["store", "waveforms"])
def checkpoint(request, own_data, tmp_path):
    """Of a network trained on the own data, on stored features and on waveforms."""
    changes = WAVEFORMS if request.param == "waveforms" else {}
    trainer = tiny_run(own_data, tmp_path / "saved", trainer__epochs=1, **changes)
    trainer.train()
    return trainer.to_test()


def preprocess(data_dir, *argv):
    return run("preprocess", "--data-dir", data_dir, "--workers", 1, *argv)


def recording(data_dir, split):
    """A recording of a split, and its annotation."""
    table = RespDataset(data_dir, 1, 1, None, (split,)).table
    wav = data_dir / table["path"].iloc[0]
    return wav, next(data_dir.rglob(f"{wav.stem}.json"))


def refused(checkpoint, capsys, *argv):
    """The one line that test.py ends with; nothing is written."""
    capsys.readouterr()
    assert run("test", "-r", checkpoint, *argv) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in shown.err
    assert not list(checkpoint.parent.rglob("metrics.json"))
    return errors[0]


def test_metrics_json_holds_what_is_needed_to_repeat_it(make, own_data, tmp_path, monkeypatch):
    assert run("train", *make(seed=7, trainer__epochs=1)) == 0
    argv = ["-r", str(tmp_path / "saved" / "model_best.pth"), "--out-dir", str(tmp_path / "a report")]
    monkeypatch.setattr("sys.argv", ["test.py", *argv])
    assert run("test", *argv) == 0
    metrics = json.loads((tmp_path / "a report" / "metrics.json").read_text())
    assert shlex.split(metrics["command"]) == ["python", "test.py", *argv]
    assert metrics["config"] == json.loads((tmp_path / "config.json").read_text())
    assert metrics["seed"] == 7
    assert metrics["data"] == RespDataset(own_data, 1, 1, None).fingerprint()
    assert metrics["data"].keys() == {"train", "inter", "intra"}
    made_with = metrics["environment"]
    assert made_with["commit"] == git_commit()
    assert made_with["python"] == platform.python_version()
    for name in ("torch", "torchaudio", "torchvision", "numpy", "soundfile"):
        assert made_with["libraries"][name] == importlib.metadata.version(name)

    # All that is in the report, in a new place, gives the report again.
    again = copy.deepcopy(metrics["config"])
    again["trainer"]["save_dir"] = str(tmp_path / "again")
    assert run("train", "-c", write_config(tmp_path / "again.json", again)) == 0
    assert run("test", "-r", tmp_path / "again" / "model_best.pth", "--out-dir", tmp_path / "b") == 0
    repeated = json.loads((tmp_path / "b" / "metrics.json").read_text())
    apart = {"checkpoint", "command", "config", "environment", "trained_with"}
    assert {k: v for k, v in repeated.items() if k not in apart} == {
        k: v for k, v in metrics.items() if k not in apart
    }
    assert (tmp_path / "a report" / "predictions.csv").read_text() == (tmp_path / "b" / "predictions.csv").read_text()


def replace_samples(wav):
    samples, rate = soundfile.read(wav, dtype="int16")
    soundfile.write(wav, np.ascontiguousarray(samples[::-1]), rate, subtype="PCM_16")


@pytest.mark.parametrize("split", ["train", "inter"])
@pytest.mark.parametrize("flags", [(), ("--method", "stft"), ("--method", "stft", "--force")])
def test_a_recording_with_other_samples_stops_the_test(checkpoint, own_data, capsys, split, flags):
    replace_samples(recording(own_data, split)[0])
    # Without --force it refuses the store, and leaves the tables as they are.
    store_refused = flags == ("--method", "stft")
    assert preprocess(own_data, *flags) == store_refused
    store_is_old = not flags and load_checkpoint(checkpoint)["config"]["data_loader"]["args"]["input_dir"]
    if store_refused:
        # The recording is in training or in validation.
        sides = ("train", "valid") if split == "train" else (split,)
        assert 1 in [run("test", "-r", checkpoint, "--split", side) for side in sides]
        assert "has other samples than when preprocess.py read it" in capsys.readouterr().err
    else:
        line = refused(checkpoint, capsys, "--split", split)
        says = "/processed_stft: lacks " if store_is_old else f": its split {split} is not that of the training"
        assert line.startswith(f"error: {own_data}{says}")


def test_samples_that_changed_behind_the_tables_stop_the_test(checkpoint, own_data, capsys):
    wav, _ = recording(own_data, "intra")
    replace_samples(wav)
    assert refused(checkpoint, capsys).startswith(f"error: {wav}: has other samples than when preprocess.py read it")


@pytest.mark.parametrize("split", ["train", "intra"])
def test_another_annotation_stops_the_test(checkpoint, own_data, capsys, split):
    label = recording(own_data, split)[1]
    content = json.loads(label.read_text())
    content["event_annotation"][0]["type"] = "Rhonchi"
    label.write_text(json.dumps(content))
    assert preprocess(own_data) == 0
    line = refused(checkpoint, capsys)
    # A test set is not scored where the training's data changed either.
    assert line.startswith(f"error: {own_data}: its split {split} is not that of the training")


def test_a_later_release_in_the_folder_changes_nothing(checkpoint, own_data, tmp_path):
    assert run("test", "-r", checkpoint, "--out-dir", tmp_path / "before") == 0
    wav, label = recording(own_data, "inter")
    for source, kind in ((wav, "wav"), (label, "json")):
        folder = own_data / "BioCAS2023" / f"test2023_{kind}"
        folder.mkdir(parents=True)
        shutil.copy(source, folder / f"_5.3_0_p8_34877{source.suffix}")
    assert preprocess(own_data, "--method", "stft", "--force") == 0
    assert run("test", "-r", checkpoint, "--out-dir", tmp_path / "after") == 0
    assert run("test", "-r", checkpoint, "--split", "test2023") == 0
    before, after = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("before", "after"))
    for key in ("n", "confusion_matrix", "inter", "intra"):
        assert before[key] == after[key]
    assert before["data"].items() < after["data"].items()


def test_another_data_set_is_scored_from_a_folder_of_its_own(checkpoint, own_data, tmp_path):
    other = tmp_path / "other"
    wav, label = recording(own_data, "inter")
    for source, kind in ((wav, "wav"), (label, "json")):
        (other / f"test_{kind}").mkdir(parents=True)
        shutil.copy(source, other / f"test_{kind}")
    assert preprocess(other, "--method", "stft") == 0
    assert run("test", "-r", checkpoint, "--data-dir", other) == 0


def test_other_features_stop_the_test(own_data, make, tmp_path, capsys):
    assert run("train", *make(trainer__epochs=1)) == 0
    meta = own_data / "processed_stft" / "meta.json"
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps(content | {"method": "wavelet"}))
    line = refused(tmp_path / "saved" / "model_best.pth", capsys)
    assert "was trained on features with method 'stft'" in line
    assert "wavelet" in line


@pytest.mark.parametrize("classes", [["Normal", "Wheeze"], ["Adventitious", "Normal"]])
def test_other_classes_stop_the_test(checkpoint, capsys, classes):
    content = load_checkpoint(checkpoint)
    content["classes"] = classes
    torch.save(content, checkpoint)
    assert f"{checkpoint}: knows the classes {', '.join(classes)}" in refused(checkpoint, capsys)


def test_another_task_stops_the_test(checkpoint, capsys):
    content = load_checkpoint(checkpoint)
    set_key(content, "config.data_loader.args.level", 2)
    torch.save(content, checkpoint)
    assert f"{checkpoint}: knows the classes Normal, Adventitious" in refused(checkpoint, capsys)


@pytest.mark.parametrize("data", ["0123abcd", None, 3, ["train"]])
def test_a_checkpoint_that_does_not_know_its_data_is_scored_with_a_warning(checkpoint, capsys, data):
    content = load_checkpoint(checkpoint)
    content["data"] = data
    torch.save(content, checkpoint)
    assert run("test", "-r", checkpoint) == 0
    assert "does not say what data it was trained on" in capsys.readouterr().err
