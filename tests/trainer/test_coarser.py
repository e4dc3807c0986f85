"""Ensembles that are trained at level 2 and scored at level 1."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from model.decision import Priors, adapt
from tests.group_run import COMMON
from tests.tiny import run, tiny_config, write_config
from utils.checkpoint import load_checkpoint

FINE = ["prob_CAS", "prob_DAS", "prob_CAS & DAS"]


@pytest.fixture
def member(tiny_data, tmp_path, forked_parts, own_sigterm):
    """A config of level 2, in a folder of its own."""
    changes = COMMON | {"data_loader__args__level": 2, "arch__args__label_dim": 5, "trainer__epochs": 1}
    return write_config(tmp_path / "fine.json", tiny_config(tiny_data, tmp_path / "saved", name="fine", **changes))


def test_adventitious_is_what_the_fine_classes_are_together(member, tmp_path):
    config = write_config(tmp_path / "coarse.json", {"name": "coarse", "ensemble": ["fine.json"], "level": 1})
    for which in (config, member):
        assert run("train", "-c", which, "--folds", 2, "--run_id", "g") == 0
    coarse, fine = (tmp_path / "saved" / "models" / name / "g" for name in ("coarse", "fine"))
    ours, theirs = (pd.read_csv(group / "oof" / "predictions.csv") for group in (coarse, fine))
    assert (ours["wav_name"] == theirs["wav_name"]).all()
    assert np.allclose(ours["prob_Adventitious"], theirs[FINE].sum(axis=1), atol=1e-6)
    assert set(ours["target"]) <= {"Normal", "Poor Quality", "Adventitious"}
    metrics = json.loads((coarse / "oof" / "metrics.json").read_text())
    assert (metrics["task"], len(metrics["confusion_matrix"])) == ("2-1", 3)
    assert metrics["decisions"].keys() == {"argmax", "counted", "score"}

    tables = []
    for group, out in ((coarse, "a"), (fine, "b")):
        assert run("test", "-r", group / "model_best.pth", "--split", "test", "--out-dir", tmp_path / out) == 0
        tables.append(pd.read_csv(tmp_path / out / "predictions.csv"))
    assert np.allclose(tables[0]["prob_Adventitious"], tables[1][FINE].sum(axis=1), atol=1e-6)


def _decided_for_the_score(prob, checkpoint, classes):
    """By the proportions of the fine classes, of which each weighs as much as in the training set."""
    priors = Priors.of(*load_checkpoint(checkpoint)["priors"].values())
    natural = adapt(prob, priors, priors.pi)
    kinds = np.array([priors.pi[0], priors.pi[2:].sum()])
    adventitious = (natural[:, 2:].sum(1) / kinds[1]) > natural[:, 0] / kinds[0]
    return [classes[-1] if found else classes[0] for found in adventitious]


def test_the_decision_for_the_score_weighs_the_fine_classes_as_in_the_training_set(member, tiny_data, tmp_path):
    config = write_config(tmp_path / "coarse.json", {"name": "coarse", "ensemble": ["fine.json"], "level": 1})
    fine, coarse = (tmp_path / "saved" / "models" / name / "g" for name in ("fine", "coarse"))
    assert run("train", "-c", member, "--folds", 2, "--run_id", "g") == 0
    assert run("train", "-c", config, "--folds", 2, "--run_id", "g", "--reuse", fine) == 0
    for group, rule in ((fine, "argmax"), (coarse, "score")):
        words = ("-r", group / "model_best.pth", "--split", "test", "--decide", rule)
        assert run("test", *words, "--out-dir", tmp_path / rule) == 0
    prob, found = (pd.read_csv(tmp_path / rule / "predictions.csv") for rule in ("argmax", "score"))
    prob = prob[["prob_Normal", "prob_Poor Quality", *FINE]].to_numpy()
    expected = _decided_for_the_score(prob, fine / "model_best.pth", ["Normal", "Poor Quality", "Adventitious"])
    assert list(found["prediction"]) == expected
    metrics = json.loads((tmp_path / "score" / "metrics.json").read_text())
    assert metrics["decisions"]["score"]["accuracy"] == (found["target"] == expected).mean()

    # And so are files without annotations.
    wav, out = tiny_data / "BioCAS2022" / "test2022_wav", tmp_path / "wav.json"
    words = ("-r", coarse / "model_best.pth", "--wav", wav, "--out", out)
    assert run("test", *words, "--decide", "score") == 0
    assert json.loads(out.read_text()) == dict(zip(found["wav_name"], expected, strict=True))

    own, theirs = (pd.read_csv(group / "oof" / "predictions.csv") for group in (coarse, fine))
    prob = theirs[["prob_Normal", "prob_Poor Quality", *FINE]].to_numpy()
    expected = _decided_for_the_score(prob, fine / "model_best.pth", ["Normal", "Poor Quality", "Adventitious"])
    metrics = json.loads((coarse / "oof" / "metrics.json").read_text())
    assert metrics["decisions"]["score"]["accuracy"] == pytest.approx((own["target"] == expected).mean())


def test_members_of_level_1_have_no_finer_classes(member, tmp_path, capsys):
    config = json.loads(member.read_text())
    config["data_loader"]["args"]["level"], config["arch"]["args"]["label_dim"] = 1, 3
    write_config(member, config)
    group = write_config(tmp_path / "coarse.json", {"name": "coarse", "ensemble": ["fine.json"], "level": 1})
    assert run("train", "-c", group, "--folds", 2) == 1
    assert "name configs of level 2" in capsys.readouterr().err


def test_one_student_at_level_1_is_its_own_network_with_the_fine_classes_put_together(member, tmp_path):
    fine = json.loads(member.read_text())
    write_config(tmp_path / "student.json", fine | {"name": "student"})
    config = write_config(tmp_path / "small.json", {"name": "small", "ensemble": ["student.json"], "level": 1})
    assert run("train", "-c", member, "--folds", 2, "--run_id", "t") == 0
    teacher = tmp_path / "saved" / "models" / "fine" / "t"
    assert run("train", "-c", config, "--folds", 2, "--run_id", "s", "--teacher", teacher) == 0
    small = tmp_path / "saved" / "models" / "small" / "s"
    metrics = json.loads((small / "oof" / "metrics.json").read_text())
    assert (metrics["task"], metrics["parameters"]) == ("2-1", 64 * 5 + 5)
    tables = []
    for checkpoint, out in ((small / "model_best.pth", "a"), (small / "student-final" / "checkpoint-epoch1.pth", "b")):
        assert run("test", "-r", checkpoint, "--split", "test", "--out-dir", tmp_path / out) == 0
        tables.append(pd.read_csv(tmp_path / out / "predictions.csv"))
    assert np.allclose(tables[0]["prob_Adventitious"], tables[1][FINE].sum(axis=1), atol=1e-6)
