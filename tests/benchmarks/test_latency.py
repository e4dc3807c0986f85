"""How long one recording takes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.tiny import run, tiny_run
from utils.cli import run_script

CHANGES = {
    "data_loader__args__task": 2,
    "arch__args__label_dim": 3,
    "metrics": [],
    "trainer__epochs": 1,
    "trainer__monitor": "off",
}


@pytest.fixture
def latency(benchmark_script):
    """The script."""
    return benchmark_script("latency")


@pytest.mark.parametrize("rule, named", [("argmax", "Poor Quality"), ("counted", "Adventitious")])
def test_the_class_is_decided_as_the_checkpoint_says(latency, monkeypatch, rule, named):
    monkeypatch.setattr(latency, "inputs_of", lambda *_: None)
    monkeypatch.setattr(latency, "model_output", lambda *_: torch.tensor([[0.0, 9.0, 1.0]]))
    classes = ("Normal", "Poor Quality", "Adventitious")
    nothing = {"finest_model": None, "finer": None, "priors": None, "member_priors": None}
    trained = SimpleNamespace(precision="fp32", rule=rule, classes=classes, **nothing)
    assert latency.class_of(trained, None, Path("a.wav")) == named


def test_each_checkpoint_is_compared_with_the_first_on_the_same_recordings(
    latency, tiny_data, tmp_path, monkeypatch, own_sigterm
):
    trainers = [tiny_run(tiny_data, tmp_path / name, name=name, **CHANGES) for name in ("large", "small")]
    for trainer in trainers:
        trainer.train()
    paths = [trainer.to_test() for trainer in trainers]
    predicted = []
    class_of = latency.class_of
    monkeypatch.setattr(latency, "class_of", lambda *args: predicted.append((args[2].name, class_of(*args))))
    argv = [*paths, "--data-dir", tiny_data, "--out", tmp_path, "--files", 3, "--runs", 2]
    assert run_script(latency.main, latency.arguments(), [str(word) for word in argv]) == 0
    lines = json.loads((tmp_path / "latency.json").read_text())["lines"]
    first = f"large ({paths[0]}), median"
    assert [line["baseline"] for line in lines] == [
        None,
        *[first] * 2,
        None,
        *[first.replace("median", "95th percentile")] * 2,
    ]
    assert lines[0]["note"] == "195 parameters"
    for line in lines:
        assert all(value > 0 for value in line["values"])
    for median, late in zip(lines[:3], lines[3:], strict=True):
        assert all(one <= other for one, other in zip(median["values"], late["values"], strict=True))
    # The classes are those of test.py.
    audio, out = tiny_data / "BioCAS2022" / "train2022_wav", tmp_path / "p.json"
    assert run("test", "-r", paths[0], "--wav", audio, "--out", out, "-d", "cpu") == 0
    of_folder = json.loads(out.read_text())
    assert all(name in of_folder for name, _ in predicted)
    once = dict(predicted[:2])
    assert once == {name: of_folder[name] for name in once}
