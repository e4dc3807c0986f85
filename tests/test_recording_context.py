"""Events in the context of their recording, from the config to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loader.classes import resp_classes
from model.context import in_context
from model.decision import Priors
from tests.tiny import run, tiny_config, tiny_run, write_config
from utils.checkpoint import load_checkpoint

CLASSES = ["Normal", "Adventitious"]
PROBABILITIES = [f"prob_{name}" for name in CLASSES]
FINE = [f"prob_{name}" for name in resp_classes(1, 2)]

pytestmark = pytest.mark.usefixtures("forked_parts", "own_sigterm")


@pytest.fixture(scope="module")
def saved(tiny_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny_run(tiny_data, folder, recording_context=True).train()
    return folder / "model_best.pth"


@pytest.fixture
def checkpoint(saved, tmp_path):
    return Path(shutil.copy(saved, tmp_path))


def _tested(checkpoint, out_dir):
    assert run("test", "-r", checkpoint, "--out-dir", out_dir) == 0
    return json.loads((out_dir / "metrics.json").read_text()), pd.read_csv(out_dir / "predictions.csv")


def _priors(checkpoint):
    found = load_checkpoint(checkpoint)["priors"]
    return Priors.of(found["pi"], found["q"])


def _alone(checkpoint):
    """The same, but for the context."""
    content = load_checkpoint(checkpoint)
    del content["config"]["recording_context"]
    torch.save(content, path := checkpoint.with_name("alone.pth"))
    return path


def test_a_test_takes_events_in_context_and_says_what_each_is_by_itself(checkpoint, tmp_path, capsys):
    metrics, table = _tested(checkpoint, tmp_path / "in_context")
    shown = capsys.readouterr().out
    without = _alone(checkpoint)
    alone_metrics, alone = _tested(without, tmp_path / "alone")
    expected = in_context(alone[PROBABILITIES], alone["wav_name"], _priors(checkpoint))
    assert table[PROBABILITIES].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert (table["prediction"] == [CLASSES[n] for n in expected.argmax(1)]).all()
    assert abs(table[PROBABILITIES] - alone[PROBABILITIES]).to_numpy().max() > 0.001
    assert metrics["each_event_alone"] == {name: alone_metrics[name] for name in metrics["each_event_alone"]}
    assert "each event was decided beside the others of its recording; by itself: " in shown
    assert "each_event_alone" not in alone_metrics


def test_files_are_predicted_each_by_itself(tiny_data, checkpoint, tmp_path):
    found = []
    for path in (
        checkpoint,
        _alone(checkpoint),
    ):
        wav, out = tiny_data / "BioCAS2022" / "test2022_wav", tmp_path / f"{path.stem}.json"
        assert run("test", "-r", path, "--wav", wav, "--out", out) == 0
        found.append(json.loads(out.read_text()))
    assert found[0] == found[1]


def test_a_checkpoint_that_does_not_know_its_class_proportions_is_refused(checkpoint, capsys):
    content = load_checkpoint(checkpoint)
    del content["priors"]
    torch.save(content, checkpoint)
    assert run("test", "-r", checkpoint) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {checkpoint}: holds no class proportions (priors)")
    assert "recording_context" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data_loader__args__task": 2, "arch__args__label_dim": 3, "metrics": ["score_task2"]},
            "is for the events of SPRSound's recordings",
        ),
        (
            {
                "arch": {"type": "SklearnClassifier", "args": {"label_dim": 2, "estimator": "naive_bayes"}},
                "optimizer": None,
                "trainer__epochs": 1,
                "trainer__monitor": "off",
            },
            "SklearnClassifier is fitted at once",
        ),
        ({"recording_context": 0.7}, "expected"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(tiny_data, tmp_path, capsys, changes, says):
    config = tiny_config(tiny_data, tmp_path / "saved", **{"recording_context": True, **changes})
    assert run("train", "-c", write_config(tmp_path / "c.json", config)) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "recording_context" in line
    assert says in line
    assert not (tmp_path / "saved").exists()


@pytest.fixture(scope="module")
def ensemble(tiny_data, tmp_path_factory):
    """The config of two members of level 2, which are trained in `saved/models/both/g` beside it."""
    folder, names = tmp_path_factory.mktemp("group"), ("one", "dropout")
    changes = {"arch__args__label_dim": 7, "data_loader__args__level": 2, "recording_context": True}
    for name in names:
        config = tiny_config(tiny_data, folder / "saved", name=name, trainer__epochs=4, **changes)
        config["arch"]["args"]["dropout"] = 0.5 if name == "dropout" else 0.0
        write_config(folder / f"{name}.json", config)
    path = write_config(folder / "both.json", {"name": "both", "ensemble": [f"{name}.json" for name in names]})
    assert run("train", "-c", path, "--folds", 2, "--run_id", "g") == 0
    return path


def _group(ensemble, run_id):
    return ensemble.parent / "saved" / "models" / "both" / run_id


def _group(ensemble, run_id, name="both"):
    return ensemble.parent / "saved" / "models" / name / run_id


def _out_of_fold(group):
    metrics = json.loads((group / "oof" / "metrics.json").read_text())
    return metrics, pd.read_csv(group / "oof" / "predictions.csv").set_index(["wav_name", "event_id"])


def _specificity(found, table):
    return (found.argmax(1) == 0)[(table["target"] == "Normal").to_numpy()].mean()


@pytest.fixture(scope="module")
def by_themselves(ensemble, tmp_path_factory):
    """The mean of the networks' out-of-fold predictions for each event by itself."""
    folder, each = tmp_path_factory.mktemp("alone"), []
    for number, path in enumerate(_group(ensemble, "g").glob("*/checkpoint-epoch4.pth")):
        alone = _alone(Path(shutil.copy(path, folder / f"{number}.pth")))
        assert run("test", "-r", alone, "--split", "valid", "--out-dir", folder) == 0
        each.append(pd.read_csv(folder / "predictions.csv").set_index(["wav_name", "event_id"]))
    return pd.concat(each).groupby(level=[0, 1])[FINE].mean()


def test_an_ensemble_takes_events_in_context_after_its_networks_are_averaged(ensemble, by_themselves):
    group = _group(ensemble, "g")
    metrics, own = _out_of_fold(group)
    mean = by_themselves.loc[own.index]
    expected = in_context(mean, own.index.get_level_values(0), _priors(group / "model_best.pth"))
    assert own[FINE].to_numpy() == pytest.approx(expected, abs=1e-5)
    specificity = _specificity(expected, own)
    assert specificity != _specificity(mean.to_numpy(), own)
    assert metrics["specificity"] == metrics["seeds"]["0"]["specificity"] == pytest.approx(specificity)
    assert metrics["each_event_alone"]["specificity"] == pytest.approx(_specificity(mean.to_numpy(), own))
    # The file with all networks does the same.
    assert load_checkpoint(group / "model_best.pth")["config"]["recording_context"] is True


def test_classes_are_put_together_after_events_are_taken_in_context(ensemble, by_themselves, tmp_path):
    config = json.loads(ensemble.read_text()) | {"name": "coarse", "level": 1}
    coarse = write_config(ensemble.with_name("coarse.json"), config)
    assert run("train", "-c", coarse, "--folds", 2, "--run_id", "g", "--reuse", _group(ensemble, "g")) == 0
    group = _group(ensemble, "g", "coarse")
    metrics, own = _out_of_fold(group)
    mean, recordings = by_themselves.loc[own.index], own.index.get_level_values(0)
    fine = in_context(mean, recordings, _priors(_group(ensemble, "g") / "model_best.pth"))
    expected = np.stack([fine[:, 0], fine[:, 1:].sum(1)], axis=1)
    assert own[PROBABILITIES].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert metrics["specificity"] == pytest.approx(_specificity(expected, own))
    # And so is what the file with all networks says of other events.
    tables = []
    for name, path in (("coarse", group), ("fine", _group(ensemble, "g"))):
        assert run("test", "-r", path / "model_best.pth", "--split", "test", "--out-dir", tmp_path / name) == 0
        tables.append(pd.read_csv(tmp_path / name / "predictions.csv"))
    assert np.allclose(tables[0]["prob_Adventitious"], tables[1][FINE[1:]].sum(axis=1), atol=1e-6)
    metrics = json.loads((tmp_path / "coarse" / "metrics.json").read_text())
    assert metrics["each_event_alone"]["score"] is not None


def test_runs_of_earlier_versions_that_do_not_know_their_class_proportions_make_no_ensemble(ensemble, capsys):
    source = Path(shutil.copytree(_group(ensemble, "g"), _group(ensemble, "old")))
    for path in source.glob("*/checkpoint-epoch4.pth"):
        content = load_checkpoint(path)
        del content["priors"]
        torch.save(content, path)
    capsys.readouterr()
    assert run("train", "-c", ensemble, "--folds", 2, "--run_id", "new", "--reuse", source) == 1
    said = capsys.readouterr().err
    assert "4 of 4 runs are taken" in said
    group = _group(ensemble, "new")
    assert said.splitlines()[-1].startswith(f"error: {group}: holds no class proportions (priors)")
    assert not (group / "model_best.pth").exists()


def test_members_that_differ_in_it_make_no_ensemble(tiny_data, tmp_path, capsys):
    for name, context in (("one", True), ("other", False)):
        config = tiny_config(tiny_data, tmp_path / "saved", name=name, recording_context=context)
        write_config(tmp_path / f"{name}.json", config)
    both = write_config(tmp_path / "both.json", {"name": "both", "ensemble": ["one.json", "other.json"]})
    assert run("train", "-c", both, "--folds", 2) == 1
    assert "other: recording_context: is not that of one" in capsys.readouterr().err
