"""Comparing runs by their predictions of the same items."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from data_loader.subject import Subject, resp_subject
from model.decision import decide
from tests.slow_scores import slow_scores
from tests.tiny import ROOT
from trainer.bootstrap import paired_differences
from trainer.report import evaluate_predictions
from utils.cli import run_script

CLASSES = ("Normal", "Poor Quality", "CAS", "DAS", "CAS & DAS")
TASK_22, TASK_12 = resp_subject(2, 2), resp_subject(1, 2)
N = 80


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys, own_sigterm):
    """The script: gives its exit status, and what it wrote, with the folder's name shortened."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("compare", ROOT / "benchmarks" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare", module)
    spec.loader.exec_module(module)

    def call(*argv):
        status = run_script(module.main, module.parser(), [str(word) for word in argv])
        said = capsys.readouterr()
        return status, (said.out + said.err).replace(f"{tmp_path}/", "")

    return call


def items(**columns):
    generator = np.random.default_rng(0)
    target = generator.integers(0, 5, N)
    table = {"wav_name": [f"{i % 60}.wav" for i in range(N)], "patient_id": [f"0{i % 11}" for i in range(N)]}
    return pd.DataFrame(table | {"event_id": np.arange(N) // 60, "split": "valid", "target": target} | columns)


def probabilities(seed, table):
    generator = np.random.default_rng(seed)
    prob = generator.random((N, 5), dtype=np.float32)
    prob[np.arange(N), table["target"]] += 0.4
    return prob / prob.sum(1, keepdims=True)


def write_run(folder, seed, table=None, classes=CLASSES, subject=TASK_22, **more):
    """What test.py writes of a run, without the picture."""
    table = items() if table is None else table
    report = evaluate_predictions(table, probabilities(seed, table), classes, subject, "valid", n_bootstrap=2, **more)
    folder.mkdir()
    report.predictions.to_csv(folder / "predictions.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps(report.metrics))
    return folder


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("rule", ["argmax", "counted"])
def test_each_run_is_compared_with_the_first_on_the_same_items(compare, tmp_path, rule):
    table = items()
    base, other = (write_run(tmp_path / name, seed, table) for name, seed in (("base", 1), ("other", 2)))
    # Its items in another order, and a file in place of its folder.
    shuffled = pd.read_csv(other / "predictions.csv", dtype=str).sample(frac=1, random_state=0)
    shuffled.to_csv(other / "predictions.csv", index=False)
    status, said = compare(base, other / "predictions.csv", base, "--decide", rule)
    assert status == 0
    header, line, first, second, same = map(cells, said.splitlines())
    over = "difference [95 % interval over patients]"
    assert header == ["run", f"Score (--decide {rule})", over, "SE (difference)", "SP (difference)"]
    assert line == ["---"] * 5
    target, patient = table["target"].to_numpy(), table["patient_id"].to_numpy()
    decided = [decide(probabilities(seed, table), rule, poor_quality=True) for seed in (1, 2)]
    ours, theirs = (slow_scores(target, each, poor_quality=True) for each in decided)
    of_base = [f"{ours[name]:.3f}" for name in ("score", "sensitivity", "specificity")]
    assert first == ["base", of_base[0], "", *of_base[1:]]
    low, high = paired_differences(target, *decided, patient, 5, "task2")["score"].interval
    expected = [f"{theirs['score']:.3f}", f"{theirs['score'] - ours['score']:+.3f} [{low:+.3f}, {high:+.3f}]"]
    expected += [f"{theirs[name]:.3f} ({theirs[name] - ours[name]:+.3f})" for name in ("sensitivity", "specificity")]
    assert second == ["other/predictions.csv", *expected]
    zero = [f"{number} (+0.000)" for number in of_base[1:]]
    assert same == ["base", of_base[0], "+0.000 [+0.000, +0.000]", *zero]


def test_classes_are_decided_as_in_the_report_of_the_first_run_unless_said(compare, tmp_path):
    base, other = (write_run(tmp_path / name, 1, rule=name) for name in ("counted", "argmax"))
    assert "(--decide counted)" in compare(base, other)[1]
    assert "(--decide argmax)" in compare(other, base)[1]
    assert "(--decide argmax)" in compare(base, other, "--decide", "argmax")[1]


def test_data_without_a_normal_class_is_compared_by_accuracy_over_its_groups(compare, tmp_path):
    table = items().rename(columns={"patient_id": "group"}).drop(columns="event_id")
    table = table.assign(start=np.arange(N) / 3, end=np.nan)
    subject = Subject("urbansound8k", "plain", "recordings")
    runs = [write_run(tmp_path / f"{seed}", seed, table, tuple("abcde"), subject) for seed in (1, 2)]
    status, said = compare(*runs)
    assert status == 0
    header, _, _, other = map(cells, said.splitlines())
    assert header == ["run", "accuracy (--decide argmax)", "difference [95 % interval over recordings]"]
    accuracy = [(probabilities(seed, table).argmax(1) == table["target"]).mean() for seed in (1, 2)]
    assert other[1] == f"{accuracy[1]:.3f}"
    assert other[2].startswith(f"{accuracy[1] - accuracy[0]:+.3f} [")


REFUSED = {
    "other items": (items(event_id=np.arange(N)), {}, "has other items than base/predictions.csv: 0.wav, 1 is in one"),
    "other targets": (items().assign(target=lambda t: (t["target"] + (t.index == 3)) % 5), {}, "has another target"),
    "other patients": (
        items().assign(patient_id="p"),
        {},
        "has another patient_id than base",
    ),
    "other classes": (items(), {"classes": CLASSES[::-1]}, "has the classes CAS & DAS, DAS, CAS"),
    "another task": (items(), {"subject": TASK_12}, "is of task 1-2, and base/predictions.csv of 2-2"),
    "items twice": (items(event_id=0), {}, "names an item twice"),
    "a task unheard of": (items(), {"subject": Subject("3-1", "task1")}, "is of the task '3-1', which is not known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_cannot_be_compared_is_named(compare, tmp_path, case):
    table, changes, says = REFUSED[case]
    base = write_run(tmp_path / "base", 1)
    other = write_run(tmp_path / "other", 2, table, **changes)
    status, said = compare(base, other)
    assert status == 1
    file = "metrics.json" if case == "a task unheard of" else "predictions.csv"
    assert said.startswith(f"error: other/{file}: {says}")
    assert said.count("\n") == 1


DAMAGED = {
    "no file": ("predictions.csv", None, "there is no such file"),
    "no table": ("predictions.csv", b'"', "cannot be read"),
    "no items": ("predictions.csv", b"wav_name,patient_id,target,prob_Normal\n", "holds no items"),
    "no target": ("predictions.csv", b"wav_name,patient_id,prob_Normal\na,b,1\n", "has no column target"),
    "no probabilities": ("predictions.csv", b"wav_name,patient_id,target\na,b,c\n", "has no column prob_CLASS"),
    "no number": ("predictions.csv", b"wav_name,patient_id,target,prob_c\na,b,c,d\n", "probability that is no number"),
    "not finite": ("predictions.csv", b"wav_name,patient_id,target,prob_c\na,b,c,nan\n", "that is not finite"),
    "no class": ("predictions.csv", b"wav_name,patient_id,target,prob_c\na,b,d,1\n", "none of the classes c"),
    "no report": ("metrics.json", None, "it says what the task is"),
    "a report that is a list": ("metrics.json", b"[]", "does not name a task"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_that_is_no_prediction_is_named(compare, tmp_path, case):
    name, content, says = DAMAGED[case]
    base = write_run(tmp_path / "base", 1)
    shutil.copytree(base, tmp_path / "other")
    path = tmp_path / "other" / name
    path.unlink() if content is None else path.write_bytes(content)
    status, said = compare(base, tmp_path / "other")
    assert status == 1
    assert said.startswith(f"error: other/{name}: ")
    assert says in said
    assert said.count("\n") == 1
