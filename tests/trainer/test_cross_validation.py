from __future__ import annotations

import json
import os
import signal
from argparse import Namespace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from data_loader.dataset import RespDataset
from tests.group_run import MEMBERS, ForkedRun, write_members
from tests.tiny import run, tiny_config, write_config
from trainer.building import make_loader
from trainer.group import check_group, read_group
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser

CLASSES = ["Normal", "Poor Quality", "Adventitious"]
PROBABILITIES = [f"prob_{name}" for name in CLASSES]
FOLDS = 2

pytestmark = pytest.mark.usefixtures("forked_parts", "own_sigterm")


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """Two members, two folds and two seeds, trained; a folder with their configs and `saved`."""
    folder = tmp_path_factory.mktemp("group")
    config = write_members(folder, tiny_data)
    assert run("train", "-c", config, "--folds", FOLDS, "--seeds", 2, "--run_id", "g") == 0
    return folder


@pytest.fixture(scope="module")
def group(folder):
    return folder / "saved" / "models" / "both" / "g"


@pytest.fixture(scope="module")
def parts(group):
    """The last checkpoint of each part, by (member, seed, fold)."""
    return {
        (member, seed, fold): group / f"{member}-seed{seed}-fold{fold}" / "checkpoint-epoch2.pth"
        for member in MEMBERS
        for seed in (0, 1)
        for fold in range(FOLDS)
    }


@pytest.fixture(scope="module")
def predictions_of(tmp_path_factory):
    """The table of predictions that test.py writes for a checkpoint and a split."""

    @cache
    def predictions_of(checkpoint, split):
        out_dir = tmp_path_factory.mktemp("report")
        assert run("test", "-r", checkpoint, "--split", split, "--out-dir", out_dir, "-d", "cpu") == 0
        return pd.read_csv(out_dir / "predictions.csv").set_index("wav_name")

    return predictions_of


@pytest.fixture(scope="module")
def out_of_fold(group):
    return pd.read_csv(group / "oof" / "predictions.csv").set_index("wav_name")


def test_the_ensemble_predicts_the_mean_of_its_networks(folder, parts, predictions_of, tmp_path, tiny_data):
    own = predictions_of(folder / "saved" / "model_best.pth", "test")
    each = [predictions_of(path, "test")[PROBABILITIES] for path in parts.values()]
    assert len({tuple(table.to_numpy().ravel()) for table in each}) == len(parts)
    assert np.allclose(own[PROBABILITIES], np.mean(each, axis=0), atol=1e-6)
    # A folder of audio, too.
    audio, out = tiny_data / "BioCAS2022" / "test2022_wav", tmp_path / "p.json"
    assert run("test", "-r", folder / "saved" / "model_best.pth", "--wav", audio, "--out", out) == 0
    assert json.loads(out.read_text()) == own["prediction"].to_dict()


def test_each_item_is_predicted_by_what_was_not_trained_on_its_patient(tiny_data, parts, out_of_fold):
    data = RespDataset(tiny_data, 2, 1, "processed_stft", ("train",))
    assert sorted(out_of_fold.index) == sorted(data.table["wav_name"])
    assert (out_of_fold["fold"].groupby(out_of_fold["patient_id"]).nunique() == 1).all()
    for (_, _, fold), path in parts.items():
        loader = make_loader(ConfigParser(load_checkpoint(path)["config"]))
        trained_on = {str(patient) for patient in loader.dataset.groups[loader.train_indices]}
        predicted = set(out_of_fold.loc[out_of_fold["fold"] == fold, "patient_id"].astype(str))
        assert predicted
        assert not trained_on & predicted


def test_out_of_fold_predictions_are_those_of_each_fold_s_validation(parts, out_of_fold, predictions_of):
    for fold in range(FOLDS):
        each = [predictions_of(path, "valid") for (_, _, its), path in parts.items() if its == fold]
        own = out_of_fold[out_of_fold["fold"] == fold]
        assert all(set(table.index) == set(own.index) for table in each)
        mean = np.mean([table.loc[own.index, PROBABILITIES] for table in each], axis=0)
        assert np.allclose(own[PROBABILITIES], mean, atol=1e-6)
        assert (own["target"] == each[0].loc[own.index, "target"]).all()


def test_the_out_of_fold_report_scores_each_fold_member_and_seed_too(group, parts, out_of_fold, predictions_of):
    metrics = json.loads((group / "oof" / "metrics.json").read_text())
    right = out_of_fold["target"] == out_of_fold["prediction"]
    by_fold = right.groupby(out_of_fold["fold"]).mean()
    assert metrics["accuracy"] == pytest.approx(right.mean())
    assert metrics["ci95"]["accuracy"][0] <= right.mean() <= metrics["ci95"]["accuracy"][1]
    assert [fold["accuracy"] for fold in metrics["folds"]] == pytest.approx(by_fold.tolist())
    assert metrics["accuracy_mean"] == pytest.approx(by_fold.mean())
    assert metrics["accuracy_std"] == pytest.approx(by_fold.std())
    assert {"score_mean", "score_std", "commit"} <= {*metrics, *metrics["environment"]}
    assert metrics["command"].startswith("python ")
    # Of one member and of one seed alone: the mean of what they predict for each fold.
    for kind, name, chosen in (("members", "norm", ("norm", None)), ("seeds", "1", (None, 1))):
        its = [key for key in parts if all(want in (None, key[n]) for n, want in enumerate(chosen))]
        tables = [predictions_of(parts[key], "valid") for key in its]
        mean = pd.concat(tables).groupby(level=0)[PROBABILITIES].mean().loc[out_of_fold.index]
        # Its members decide by what the score counts.
        predicted = np.array(CLASSES)[mean.assign(**{"prob_Poor Quality": 0.0}).to_numpy().argmax(1)]
        assert "Poor Quality" not in set(out_of_fold["prediction"])
        assert metrics[kind][name]["accuracy"] == pytest.approx((predicted == out_of_fold["target"]).mean())
    assert metrics["members"]["dropout"]["parameters"] == 64 * 3 + 3
    assert metrics["parameters"] == 4 * (195 + 195 + 128)
    assert metrics["minutes"].keys() == {path.parent.name for path in parts.values()}


def test_the_group_is_the_newest_run_and_its_parts_lie_below_it(folder, group):
    saved = folder / "saved"
    assert (saved / "newest_run.txt").read_text().strip() == str(group)
    assert (saved / "model_best.pth").samefile(group / "model_best.pth")
    for part in group.glob("*-seed*"):
        # Nothing is chosen on the fold, and nothing but the end is kept.
        assert [path.name for path in part.glob("*.pth")] == ["checkpoint-epoch2.pth"]
        assert (part / "train.log").is_file()
    configs = [load_checkpoint(path)["config"] for path in group.glob("*/*.pth")]
    assert {config["data_loader"]["args"]["seed"] for config in configs} == {0}
    assert {config["seed"] for config in configs} == {0, 1}


def test_a_finished_group_is_only_shown_again(folder, group, capsys):
    before = {path: path.stat().st_mtime_ns for path in group.rglob("*.pth")}
    arguments = ["-c", folder / "both.json", "--folds", FOLDS, "--seeds", 2]
    assert run("train", *arguments, "-r", "auto") == 0
    shown = capsys.readouterr()
    assert "all is done" in shown.err
    assert "split out-of-fold, decided by counted: 18 items of 6 patients" in shown.out
    assert {path: path.stat().st_mtime_ns for path in group.rglob("*.pth")} == before
    # With another config, or on other features, it would be another group.
    assert run("train", *arguments, "-r", "auto", "--lr", 0.5) == 1
    assert "begun with another members.dropout.optimizer.args.lr" in capsys.readouterr().err
    assert run("train", *arguments[:-1], 3, "--run_id", "g") == 1
    assert "begun with another seeds" in capsys.readouterr().err
    record = json.loads((group / "group.json").read_text())
    (group / "group.json").write_text(json.dumps(record | {"input": record["input"] | {"shape": [1, 224, 200]}}))
    assert run("train", *arguments, "-r", "auto") == 1
    assert "begun with another input.shape (preprocess as for it" in capsys.readouterr().err
    # Earlier versions did not note them; and a default that is spelled out changes nothing.
    del record["input"]
    (group / "group.json").write_text(json.dumps(record))
    assert run("train", *arguments, "-r", "auto", "--set", "recording_context=false", "arch.args.norm=false") == 1
    assert "begun with another members.norm.arch.args.norm" in capsys.readouterr().err
    assert run("train", *arguments, "-r", "auto", "--set", "recording_context=false") == 0


def test_members_that_differ_in_a_default_that_one_spells_out_are_one(tiny_data, tmp_path):
    for name, own in (("one", {}), ("two", {"decide": "argmax", "recording_context": False})):
        write_config(tmp_path / f"{name}.json", tiny_config(tiny_data, tmp_path, name=name, **own))
    config = write_config(tmp_path / "both.json", {"name": "both", "ensemble": ["one.json", "two.json"]})
    none = dict.fromkeys(["resume", "set", "lr", "bs", "data_dir", "seeds"])
    record, _ = check_group(read_group(Namespace(config=config, folds=2, **none)))
    assert record["members"].keys() == {"one", "two"}


def test_what_an_ensemble_cannot_do_is_said(folder, capsys):
    best = folder / "saved" / "model_best.pth"
    assert run("test", "-r", best, "--split", "valid") == 1
    assert "all items were trained on" in capsys.readouterr().err
    assert run("train", "-r", best) == 1
    assert "put together of trained networks" in capsys.readouterr().err
    assert run("train", "-c", folder / "both.json") == 1
    assert "error: ensemble: names configs that are trained together" in capsys.readouterr().err
    assert run("train", "-c", folder / "both.json", "--folds", 2, "-r", best) == 1
    assert "take -r auto" in capsys.readouterr().err


def small(folder, data_dir, **changes):
    """Arguments of a group of one member and two folds; its first steps are saved."""
    folder.mkdir()
    changes = {"arch__args__dropout": 0.5, "trainer__save_every_steps": 1} | changes
    config = tiny_config(data_dir, folder / "saved", **changes)
    return "-c", write_config(folder / "tiny.json", config), "--folds", 2, "--run_id", "g", "--jobs", 2


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory):
    """What a small group leaves: the checkpoint of its ensemble, and its out-of-fold predictions."""
    folder = tmp_path_factory.mktemp("undisturbed") / "x"
    assert run("train", *small(folder, tiny_data)) == 0
    return outcome(folder)


def outcome(folder):
    csv = folder / "saved" / "models" / "tiny" / "g" / "oof" / "predictions.csv"
    return load_checkpoint(folder / "saved" / "model_best.pth")["state_dict"], csv.read_bytes()


@pytest.mark.parametrize("kind", ["a run is killed", "SIGTERM"])
def test_what_was_interrupted_goes_on_to_the_same_bits(tiny_data, tmp_path, undisturbed, monkeypatch, capsys, kind):
    stopped = small(tmp_path / "stopped", tiny_data)
    if kind == "SIGTERM":
        monkeypatch.setattr(ForkedRun, "killed", ("fold1", 2, signal.SIGTERM, os.getpid()))
        assert run("train", *stopped) == 128 + signal.SIGTERM
    else:
        monkeypatch.setattr(ForkedRun, "killed", ("fold1", 2, signal.SIGKILL, None))
        assert run("train", *stopped) == 1
        assert capsys.readouterr().err.splitlines()[-1] == "error: tiny-seed0-fold1: was ended by SIGKILL"
    group = tmp_path / "stopped" / "saved" / "models" / "tiny" / "g"
    assert [path.name for path in (group / "tiny-seed0-fold1").glob("*.pth")] == ["checkpoint-epoch1-step2.pth"]
    assert not (tmp_path / "stopped" / "saved" / "model_best.pth").exists()
    monkeypatch.setattr(ForkedRun, "killed", None)
    assert run("train", *stopped) == 0
    assert "tiny-seed0-fold1: goes on" in capsys.readouterr().err
    own, predictions = outcome(tmp_path / "stopped")
    assert own.keys() == undisturbed[0].keys()
    assert all(torch.equal(own[name], undisturbed[0][name]) for name in own)
    assert predictions == undisturbed[1]


def test_a_group_whose_config_is_gone_is_not_begun_anew_elsewhere(tiny_data, tmp_path, capsys):
    arguments = small(tmp_path / "x", tiny_data)
    group = tmp_path / "x" / "saved" / "models" / "tiny" / "g"
    group.mkdir(parents=True)
    (group / "group.json").write_text("{}")
    assert run("train", *arguments) == 1
    assert f"error: {group}: there is such a run already" in capsys.readouterr().err
    assert [path.name for path in group.parent.iterdir()] == ["g"]


def test_a_run_that_fails_says_why_in_one_line(tiny_data, tmp_path, capsys):
    # What no check of a config finds: the loss overflows.
    assert run("train", *small(tmp_path / "x", tiny_data, optimizer={"type": "SGD", "args": {"lr": 1e38}})) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: tiny-seed0-fold")
    assert "finite" in line
    assert not (tmp_path / "x" / "saved" / "model_best.pth").exists()
    # Of the run that failed: another one may have been stopped before it said anything.
    failed = line.split(": ")[1]
    output = tmp_path / "x" / "saved" / "models" / "tiny" / "g" / "output" / f"{failed}.log"
    assert "training items" in output.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "two: split: is not that of one"),
        ({"decide": "counted"}, "two: decide: is not that of one"),
        ({"data_loader__args__task": 1, "arch__args__label_dim": 2, "metrics": []}, "two: task: is not that of one"),
        ({"data_loader__args__level": 2, "arch__args__label_dim": 5}, "two: task: is not that of one"),
        ({"data_loader__args__filtered": True}, "two: data: is not that of one"),
        (
            {
                "data_loader__args__input_dir": None,
                "data_loader__args__frontend": "stft",
                "data_loader__args__rate": 4000,
            },
            "two: input (rate): is not that of one",
        ),
        ({"name": "one"}, "two members are called one"),
        ({"arch__args__label_dim": 4}, "two: arch.args.label_dim: is 4"),
        ({"ensemble": ["one.json"]}, "two.json: ensemble: is in a config"),
        ({"lr_scheduler": {"type": "ReduceLROnPlateau"}}, "two: lr_scheduler.type: is ReduceLROnPlateau"),
        ({"data_loader__args__validation_split": "64/16/20"}, "two: data_loader.args.validation_split: holds out"),
        ({"epochs": 3}, "two.json: epochs: is unknown"),
    ],
)
def test_members_that_cannot_be_one_are_refused_before_anything_is_trained(tiny_data, tmp_path, capsys, changes, said):
    common = {"data_loader__args__task": 2, "arch__args__label_dim": 3, "metrics": ["accuracy"]}
    for name, own in (("one", {}), ("two", changes)):
        write_config(
            tmp_path / f"{name}.json", tiny_config(tiny_data, tmp_path / "saved", **common | {"name": name} | own)
        )
    config = write_config(tmp_path / "both.json", {"name": "both", "ensemble": ["one.json", "two.json"]})
    assert run("train", "-c", config, "--folds", 2) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "saved").exists()
