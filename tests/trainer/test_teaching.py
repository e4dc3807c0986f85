"""``train.py --folds --teacher``: the students of a group, and the one that is published."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.group_run import COMMON, write_members
from tests.tiny import run, tiny_config, write_config
from trainer.building import make_loader
from trainer.group import read_group
from trainer.teaching import prepare_soft_targets, read_teacher, taught
from utils.checkpoint import load_checkpoint, save_checkpoint
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


@pytest.fixture(scope="module")
def reused(tiny_data, teacher, students, tmp_path_factory):
    """A command of students that decide otherwise, whose runs are those of `students`; and their folder."""
    folder = tmp_path_factory.mktemp("reused")
    command = student(folder, tiny_data, distillation={"weight": 0.9}, decide="argmax")
    command = *command, "--run_id", "r", "--teacher", teacher
    assert run("train", *command, "--reuse", students) == 0
    return command, folder / "saved" / "models" / "small" / "r"


def test_what_is_published_decides_as_it_was_scored_also_where_its_run_was_taken_from_another_group(students, reused):
    _, group = reused
    taken = load_checkpoint(group / "small-final" / "checkpoint-epoch1.pth")
    assert taken["config"] == load_checkpoint(students / "small-final" / "checkpoint-epoch1.pth")["config"]
    assert json.loads((group / "oof" / "metrics.json").read_text())["decide"] == "argmax"
    config = load_checkpoint(group / "model_best.pth")["config"]
    assert config == taken["config"] | {"decide": "argmax", "trainer": config["trainer"]}


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_report_of_a_finished_group_that_is_damaged_or_gone_is_made_anew(reused, content, capsys):
    command, group = reused
    path = group / "oof" / "metrics.json"
    before = json.loads(path.read_text())
    path.write_text(content) if content else path.unlink()
    assert run("train", *command) == 0
    after = json.loads(path.read_text())
    differing = {key for key in before if before[key] != after[key]}
    assert before.keys() == after.keys()
    assert differing <= {"command", "environment"}
    assert f"{path}: " in capsys.readouterr().err


def tables_of(folder, command):
    """What `prepare_soft_targets` says of a teacher's tables."""
    none = dict.fromkeys(["resume", "run_id", "set", "lr", "bs", "data_dir", "seeds"])
    group = read_group(Namespace(config=command[1], folds=2, **none))
    teacher = read_teacher(folder, group)
    return prepare_soft_targets(teacher, taught(group, teacher), tuple(CLASSES), torch.device("cpu"))


def test_tables_of_a_teacher_that_was_trained_anew_are_made_anew(tiny_data, teacher, students, tmp_path):
    own, command = shutil.copytree(teacher, tmp_path / "own"), student(tmp_path, tiny_data)
    first = tables_of(own, command)
    assert first == tables_of(teacher, command)
    assert json.loads((students / "group.json").read_text())["soft_targets"] == first

    def train_anew():
        path = own / "dropout-seed0-fold0" / "checkpoint-epoch1.pth"
        checkpoint = load_checkpoint(path)
        checkpoint["state_dict"]["linear.bias"] += 1.0 + torch.arange(3.0)
        save_checkpoint(path, checkpoint)

    train_anew()
    second = tables_of(own, command)
    assert {name for name in first if first[name] != second[name]} == {"fold0", "final"}
    # Those of earlier versions do not say what they were made of, and stay.
    train_anew()
    for note in (own / "soft_targets").glob("*.json"):
        note.unlink()
    assert tables_of(own, command) == second


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--seeds", 2], "--seeds: is 2, but --teacher publishes one network"),
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
    record = json.loads((teacher / "group.json").read_text())
    for changes in ({"seeds": []}, {"folds": 0}, {"members": {}}):
        (tmp_path / "group.json").write_text(json.dumps(record | changes))
        assert run("train", *taught, "--teacher", tmp_path) == 1
        assert "does not tell of a group of runs" in capsys.readouterr().err
    (tmp_path / "group.json").write_text(json.dumps(record | {"members": {"dropout": {"decide": "?"}}}))
    assert run("train", *taught, "--teacher", tmp_path) == 1
    assert f"error: {tmp_path / 'group.json'}: does not fit this program" in capsys.readouterr().err
    shutil.copy(teacher / "group.json", tmp_path)
    assert run("train", *taught, "--teacher", tmp_path) == 1
    assert "is not trained to its end: dropout-seed0-fold0 and 3 others" in capsys.readouterr().err
    assert run("train", "-c", folder / "both.json", "--folds", 2, "--teacher", teacher) == 1
    assert "teaches one network" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()
