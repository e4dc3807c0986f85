from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from tests.tiny import ROOT, run, tiny_run
from utils.checkpoint import load_checkpoint

CLASSES = ["Normal", "Poor Quality", "Adventitious"]


@pytest.fixture(scope="module")
def saved(tiny_data, tmp_path_factory):
    """The save_dir of a network for task 2-1, trained a little."""
    folder = tmp_path_factory.mktemp("saved")
    changes = {"data_loader__args__task": 2, "arch__args__label_dim": 3, "metrics": ["score_task2"]}
    tiny_run(tiny_data, folder, trainer__epochs=5, **changes).train()
    return folder


@pytest.fixture
def checkpoint(saved, tmp_path):
    """A copy, alone in its folder: nothing else is needed."""
    return Path(shutil.copy(saved / "model_best.pth", tmp_path))


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def recomputed(table):
    """The numbers of DESIGN section 5, from a table of predictions."""
    matrix = confusion_matrix(table["target"], table["prediction"], labels=CLASSES)
    specificity = matrix[0, 0] / matrix[0].sum()
    sensitivity = matrix[2:, 2:].trace() / matrix[2:].sum()
    average = (sensitivity + specificity) / 2
    harmonic = 2 * sensitivity * specificity / (sensitivity + specificity) if average else 0.0
    return {
        "accuracy": matrix.trace() / matrix.sum(),
        "specificity": specificity,
        "sensitivity": sensitivity,
        "average_score": average,
        "harmonic_score": harmonic,
        "score": (average + harmonic) / 2,
    }


def test_several_processes_are_refused(checkpoint, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("test", "-r", checkpoint) == 1
    assert last_line(capsys) == "error: test.py: several processes were started (start one, without torchrun)"


def test_a_report_is_printed_and_written_beside_the_checkpoint(tiny_data, checkpoint, tmp_path, capsys):
    assert run("test", "-r", checkpoint) == 0
    shown = capsys.readouterr()
    assert "this is test" in shown.err
    for text in ("task 2-1, split test: 10 items", "inter: 4 items", "intra: 6 items", "95 %", "n/a", "score"):
        assert text in shown.out
    assert {path.name for path in (tmp_path / "test").iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "confusion_matrix.png",
    }
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    table = pd.read_csv(tmp_path / "test" / "predictions.csv")
    known = pd.read_csv(tiny_data / "task2.csv").set_index("wav_name")
    assert list(table) == ["wav_name", "patient_id", "target", "prediction", *(f"prob_{name}" for name in CLASSES)]
    assert (table["target"].to_numpy() == known.loc[table["wav_name"], "label_21"].to_numpy()).all()
    probabilities = table[[f"prob_{name}" for name in CLASSES]].to_numpy()
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (np.array(CLASSES)[probabilities.argmax(1)] == table["prediction"]).all()

    parts = known.loc[table["wav_name"], "split"].to_numpy()
    for found, rows in ((metrics, table), *((metrics[part], table[parts == part]) for part in ("inter", "intra"))):
        assert found["n"] == len(rows)
        assert found["classes"] == CLASSES
        for name, value in recomputed(rows).items():
            assert found[name] == pytest.approx(value), name
        matrix = confusion_matrix(rows["target"], rows["prediction"], labels=CLASSES)
        assert found["confusion_matrix"] == matrix.tolist()
        for name in CLASSES:
            own, of = found["per_class"][name], {"labels": [name], "average": "macro", "zero_division": np.nan}
            assert own["support"] == (rows["target"] == name).sum()
            for key, function in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
                value = function(rows["target"], rows["prediction"], **of)
                expected = None if key != "precision" and not own["support"] else value
                assert own[key] == (pytest.approx(expected) if expected is not None and expected == expected else None)
        low, high = found["ci95"]["score"]
        assert 0 <= low <= high <= 1
    assert metrics["task"] == "2-1"
    assert metrics["split"] == "test"


@pytest.mark.parametrize("split", ["valid", "train", "inter", "intra"])
def test_every_split_can_be_named(checkpoint, tmp_path, split):
    assert run("test", "-r", checkpoint, "--split", split, "--bs", 3) == 0
    metrics = json.loads((tmp_path / split / "metrics.json").read_text())
    assert metrics["split"] == split
    assert "inter" not in metrics


def test_the_report_goes_where_it_is_told(checkpoint, tmp_path):
    assert run("test", "-r", checkpoint, "--out-dir", tmp_path / "deep" / "report", "-d", "cpu") == 0
    assert (tmp_path / "deep" / "report" / "metrics.json").is_file()
    assert not (tmp_path / "test").exists()


def test_a_folder_of_audio_is_predicted_in_the_format_of_the_challenge(tiny_data, checkpoint, tmp_path, capsys):
    folder = tiny_data / "BioCAS2022" / "test2022_wav"
    assert run("test", "-r", checkpoint) == 0
    table = pd.read_csv(tmp_path / "test" / "predictions.csv")
    assert run("test", "-r", checkpoint, "--wav", folder, "--out", tmp_path / "p.json", "--bs", 4) == 0
    predictions = json.loads((tmp_path / "p.json").read_text())
    assert predictions == dict(zip(table["wav_name"], table["prediction"], strict=True))
    assert list(predictions) == sorted(path.name for path in folder.iterdir())
    assert "10 predictions" in capsys.readouterr().out


def test_the_checkpoint_holds_the_class_proportions_of_its_training(checkpoint):
    content = load_checkpoint(checkpoint)
    known = content["config"]["data_loader"]["args"]
    # The loss is balanced over the classes that occur.
    assert content["priors"]["q"] == pytest.approx([1 / 3] * 3)
    assert known["task"] == 2
    assert content["priors"]["pi"][0] > content["priors"]["pi"][1] > 0


def test_the_decision_is_that_of_the_config_unless_another_one_is_asked_for(checkpoint, tmp_path, capsys):
    content = load_checkpoint(checkpoint)
    content["config"]["decide"] = "counted"
    # As a network that calls everything Poor Quality.
    bias = [name for name, value in content["state_dict"].items() if value.shape == (3,)][-1]
    content["state_dict"][bias] += torch.tensor([0.0, 100.0, 0.0])
    torch.save(content, checkpoint)
    for options, rule in (((), "counted"), (("--decide", "argmax"), "argmax")):
        assert run("test", "-r", checkpoint, *options, "--out-dir", tmp_path / rule) == 0
        predicted = set(pd.read_csv(tmp_path / rule / "predictions.csv")["prediction"])
        assert ("Poor Quality" in predicted) == (rule == "argmax")
        assert json.loads((tmp_path / rule / "metrics.json").read_text())["decide"] == rule
        assert ("decided by counted" in capsys.readouterr().out) == (rule == "counted")


def test_decisions_for_the_score_are_never_poor_quality_and_are_reported_beside_the_others(
    tiny_data, checkpoint, tmp_path, capsys
):
    content = load_checkpoint(checkpoint)
    # As of a training that saw next to no normal recording.
    content["priors"] = {"pi": [0.9, 0.05, 0.05], "q": [0.02, 0.01, 0.97]}
    torch.save(content, checkpoint)
    reports = {}
    for rule in ("argmax", "score"):
        assert run("test", "-r", checkpoint, "--decide", rule, "--out-dir", tmp_path / rule) == 0
        metrics = json.loads((tmp_path / rule / "metrics.json").read_text())
        reports[rule] = metrics, pd.read_csv(tmp_path / rule / "predictions.csv")
    for rule, (metrics, table) in reports.items():
        assert metrics["decide"] == rule
        for name, value in recomputed(table).items():
            assert metrics[name] == metrics["decisions"][rule][name] == pytest.approx(value)
    assert reports["argmax"][0]["decisions"] == reports["score"][0]["decisions"]
    table = reports["score"][1]
    probabilities = [f"prob_{name}" for name in CLASSES]
    assert table[probabilities].equals(reports["argmax"][1][probabilities])
    expected = np.where(table["prob_Normal"] / 0.02 >= table["prob_Adventitious"] / 0.97, "Normal", "Adventitious")
    assert (table["prediction"] == expected).all()
    assert (table["prediction"] != reports["argmax"][1]["prediction"]).any()
    assert "worst_subgroup" in reports["score"][0]

    folder, out = tiny_data / "BioCAS2022" / "test2022_wav", tmp_path / "p.json"
    assert run("test", "-r", checkpoint, "--wav", folder, "--out", out, "--decide", "score") == 0
    assert json.loads(out.read_text()) == dict(zip(table["wav_name"], table["prediction"], strict=True))
    capsys.readouterr()
    assert run("test", "-r", checkpoint, "--wav", folder, "--out", out, "--adapt-priors") == 0
    said = capsys.readouterr().err
    assert "class proportions, estimated by EM: Normal " in said
    assert "they rest on 10 items alone" in said


def test_a_checkpoint_without_class_proportions_is_decided_by_argmax_alone(tiny_data, checkpoint, tmp_path, capsys):
    content = load_checkpoint(checkpoint)
    del content["priors"]
    torch.save(content, checkpoint)
    wav = tiny_data / "BioCAS2022" / "test2022_wav"
    for argv in (["--decide", "score"], ["--wav", wav, "--out", tmp_path / "p.json", "--adapt-priors"]):
        assert run("test", "-r", checkpoint, *argv) == 1
        assert "holds no class proportions (priors)" in last_line(capsys)
    assert run("test", "-r", checkpoint) == 0
    assert json.loads((tmp_path / "test" / "metrics.json").read_text())["decisions"].keys() == {"argmax", "counted"}


def test_the_data_may_have_moved(tiny_data, checkpoint, tmp_path):
    content = load_checkpoint(checkpoint)
    content["config"]["data_loader"]["args"]["data_dir"] = "/nowhere"
    torch.save(content, checkpoint)
    assert run("test", "-r", checkpoint) == 1
    assert run("test", "-r", checkpoint, "--data-dir", tiny_data) == 0
    # A folder needs no data at all.
    wav = tiny_data / "BioCAS2022" / "test2022_wav"
    assert run("test", "-r", checkpoint, "--wav", wav, "--out", tmp_path / "p.json") == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--split", "tset"], "its splits: inter, intra, train"),
        (["--wav", "nowhere", "--out", "p.json"], "nowhere: there is no such folder"),
        (["--data-dir", "nowhere"], "nowhere/task2.csv: there is no such table"),
        (["--wav", __file__, "--out", "p.json"], "test_test.py: is a file (name the folder"),
        (["--out-dir", __file__], "cannot be written"),
    ],
)
def test_a_mistake_is_one_line(checkpoint, capsys, argv, says):
    assert run("test", "-r", checkpoint, *argv) == 1
    line = last_line(capsys)
    assert line.startswith("error: ")
    assert says in line


@pytest.mark.parametrize("argv", [["--wav", ".", "--out"], ["--out-dir"]])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(checkpoint, tmp_path, capsys, argv, monkeypatch):
    monkeypatch.setattr("trainer.trained.load_trained", None)
    (tmp_path / "file").write_text("")
    assert run("test", "-r", checkpoint, *argv, tmp_path / "file" / "below" / "x") == 1
    name = argv[-1]
    assert last_line(capsys).endswith(f"cannot be written: {tmp_path / 'file'} is no folder (name another {name})")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["--wav", "x"],
        ["--out", "x"],
        ["--bs", "0"],
        ["--bs", "-3"],
        ["--wav", "x", "--out", "y", "--split", "test"],
        ["--decide", "best"],
        ["--adapt-priors"],
    ],
)
def test_wrong_usage_is_2(checkpoint, capsys, argv):
    with pytest.raises(SystemExit) as caught:
        run("test", "-r", checkpoint, *argv)
    assert caught.value.code == 2


@pytest.mark.parametrize("damage", ["text", "cut", "other weights", "other config"])
def test_a_checkpoint_that_is_none_or_does_not_fit_is_one_line(checkpoint, tmp_path, capsys, damage):
    path = tmp_path / "bad.pth"
    content = load_checkpoint(checkpoint)
    if damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(checkpoint.read_bytes()[:5000])
    elif damage == "other weights":
        content["state_dict"] = {"conv.weight": torch.zeros(3)}
        torch.save(content, path)
    else:
        content["config"]["arch"]["args"]["norm"] = True
        torch.save(content, path)
    assert run("test", "-r", path) == 1
    assert last_line(capsys).startswith(f"error: {path}: ")


def test_a_reader_that_goes_away_is_no_traceback(checkpoint):
    code = "import sys, tests.tiny; sys.exit(tests.tiny.run('test', *sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-r", str(checkpoint)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
