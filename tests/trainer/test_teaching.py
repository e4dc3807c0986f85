"""``train.py --folds --teacher``: the students of a group, and the one that is published."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from tests.group_run import COMMON, write_members
from tests.tiny import run, tiny_config, write_config
from trainer.setup import make_loader
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser

CLASSES = ["Normal", "Poor Quality", "Adventitious"]
PROBABILITIES = [f"prob_{name}" for name in CLASSES]

pytestmark = pytest.mark.usefixtures("forked_parts", "own_sigterm")


def student(folder, data_dir, **changes):
    """Arguments of a group of students."""
    changes = COMMON | {"name": "small", "arch__args__label_dim": 3, "trainer__epochs": 1} | changes
    return "-c", write_config(folder / "small.json", tiny_config(data_dir, folder / "saved", **changes)), "--folds", 2


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """A teacher of two members and its students, trained; a folder with their configs and `saved`."""
    folder = tmp_path_factory.mktemp("taught")
    both = write_members(folder, tiny_data, trainer__epochs=1)
    assert run("train", "-c", both, "--folds", 2, "--run_id", "t") == 0
    taught = student(folder, tiny_data, distillation={"weight": 0.9})
    assert run("train", *taught, "--run_id", "s", "--teacher", folder / "saved/models/both/t") == 0
    return folder


@pytest.fixture(scope="module")
def teacher(folder):
    return folder / "saved" / "models" / "both" / "t"


@pytest.fixture(scope="module")
def students(folder):
    return folder / "saved" / "models" / "small" / "s"


def loader_of(path):
    return make_loader(ConfigParser(load_checkpoint(path)["config"]))


def test_a_fold_s_student_learns_from_what_never_saw_its_patients(teacher, students):
    for fold in (0, 1):
        own = loader_of(students / f"small-seed0-fold{fold}" / "checkpoint-epoch1.pth")
        config = load_checkpoint(students / f"small-seed0-fold{fold}" / "checkpoint-epoch1.pth")["config"]
        table = pd.read_csv(config["distillation"]["soft_targets"], dtype={"item": str})
        assert config["distillation"]["weight"] == 0.9
        assert sorted(table["item"]) == sorted(own.dataset.names[own.train_indices])
        unseen = {*own.dataset.groups[own.valid_indices]}
        each = []
        for member in ("dropout", "norm"):
            path = teacher / f"{member}-seed0-fold{fold}" / "checkpoint-epoch1.pth"
            its = loader_of(path)
            assert unseen
            assert not unseen & {*its.dataset.groups[its.train_indices]}
            out = students.parent / f"{member}{fold}"
            assert run("test", "-r", path, "--split", "train", "--out-dir", out, "-d", "cpu") == 0
            each.append(pd.read_csv(out / "predictions.csv"))
        mean = np.mean([predicted[PROBABILITIES] for predicted in each], axis=0)
        items = [name.removesuffix(".wav") for name in each[0]["wav_name"]]
        np.testing.assert_allclose(table.set_index("item").loc[items, PROBABILITIES], mean, atol=1e-6)


def test_the_final_student_learns_of_all_items_what_was_not_trained_on_them_says(teacher, students):
    checkpoint = load_checkpoint(students / "small-final" / "checkpoint-epoch1.pth")
    table = pd.read_csv(checkpoint["config"]["distillation"]["soft_targets"], dtype={"item": str})
    out_of_fold = pd.read_csv(teacher / "oof" / "predictions.csv")
    items = [name.removesuffix(".wav") for name in out_of_fold["wav_name"]]
    assert sorted(table["item"]) == sorted(items)
    found = table.set_index("item").loc[items, PROBABILITIES]
    np.testing.assert_allclose(found, out_of_fold[PROBABILITIES], atol=1e-6)
    loader = loader_of(students / "small-final" / "checkpoint-epoch1.pth")
    assert (len(loader.train_indices), len(loader.valid_indices)) == (len(table), 0)


def test_one_network_is_published_and_scored_by_the_students_of_the_folds(folder, students, tmp_path, capsys):
    best = load_checkpoint(folder / "saved" / "model_best.pth")
    last = load_checkpoint(students / "small-final" / "checkpoint-epoch1.pth")
    assert best["arch"] == "Tiny"
    assert all(torch.equal(best["state_dict"][name], last["state_dict"][name]) for name in last["state_dict"])
    assert "optimizer" not in best
    metrics = json.loads((students / "oof" / "metrics.json").read_text())
    assert metrics["parameters"] == sum(tensor.numel() for tensor in best["state_dict"].values()) == 195
    assert metrics["teacher"] == "both/t"
    assert metrics["minutes"].keys() == {"small-seed0-fold0", "small-seed0-fold1", "small-final"}
    assert metrics["minutes_together"] == pytest.approx(sum(metrics["minutes"].values()), abs=0.01)
    assert len(pd.read_csv(students / "oof" / "predictions.csv")) == metrics["n"] == 18
    path = folder / "saved" / "model_best.pth"
    assert run("test", "-r", path, "--split", "test", "--out-dir", tmp_path, "-d", "cpu") == 0
    assert run("test", "-r", path, "--split", "valid", "-d", "cpu") == 1
    assert "the out-of-fold scores are in" in capsys.readouterr().err


def test_what_was_interrupted_goes_on_and_with_no_other_teacher(
    folder, teacher, students, tiny_data, tmp_path, capsys
):
    again = *student(folder, tiny_data, distillation={"weight": 0.9}), "--run_id", "s"
    before = load_checkpoint(students / "model_best.pth")["state_dict"]
    tables = {path: path.stat().st_mtime_ns for path in (teacher / "soft_targets").iterdir()}
    for gone in (students / "model_best.pth", students / "small-final", students / "small-seed0-fold1"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert run("train", *again, "--teacher", teacher) == 0
    after = load_checkpoint(students / "model_best.pth")["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {path: path.stat().st_mtime_ns for path in (teacher / "soft_targets").iterdir()} == tables
    other = shutil.copytree(teacher, tmp_path / "other")
    assert run("train", *again, "--teacher", other) == 1
    assert "was begun with another teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--folds", 3], "--folds: is 3, the teacher has 2"),
        ({"seed": 5}, [], "is of other items than those that small-seed5-fold0 is trained on"),
        (
            {"data_loader__args__level": 2, "arch__args__label_dim": 5},
            [],
            "knows the classes Normal, Poor Quality, Adventitious",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_trained(
    tiny_data, teacher, tmp_path, capsys, changes, arguments, said
):
    taught = student(tmp_path, tiny_data, **changes)
    assert run("train", *taught, *arguments, "--teacher", teacher) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "saved").exists()


def test_what_is_no_trained_group_teaches_nothing(tiny_data, folder, teacher, tmp_path, capsys):
    taught = student(tmp_path, tiny_data)
    assert run("train", *taught, "--teacher", tmp_path) == 1
    assert "is no group of runs" in capsys.readouterr().err
    shutil.copy(teacher / "group.json", tmp_path)
    assert run("train", *taught, "--teacher", tmp_path) == 1
    assert "is not trained to its end: dropout-seed0-fold0 and 3 others" in capsys.readouterr().err
    assert run("train", "-c", folder / "both.json", "--folds", 2, "--teacher", teacher) == 1
    assert "teaches one network" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()
