"""The scores of parts of a split, and the worst of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_loader.classes import resp_classes
from data_loader.subject import resp_subject
from model.metric import scores
from trainer.report import evaluate_predictions
from trainer.subgroups import MIN_PATIENTS, subgroups, worst_subgroup

CLASSES = resp_classes(2, 2)


def case(n=600, patients=60, seed=0):
    """A table of recordings, what they are, and what was predicted: right in two of three."""
    rng = np.random.default_rng(seed)
    of = rng.integers(patients, size=n)
    table = pd.DataFrame(
        {
            "wav_name": [f"{i}.wav" for i in range(n)],
            "path": [f"wav/{i}.wav" for i in range(n)],
            "patient_id": [f"p{p}" for p in of],
            "age": rng.choice([0.2, 2.9, 3.0, 5.5, 6.0, 8.9, 9.0, 16.2], size=patients)[of],
            "gender": rng.integers(2, size=patients)[of],
            "loc": rng.choice(["p1", "p2", "p3", "p4"], size=n),
            "rec_id": rng.permutation(n) + 1,
            "noise_db": rng.normal(-63, 3, size=n).round(1),
            "split": "valid",
        }
    )
    target = rng.choice(5, size=n, p=[0.5, 0.1, 0.15, 0.15, 0.1])
    prediction = np.where(rng.random(n) < 0.67, target, rng.integers(5, size=n))
    return table, target, prediction


def slow(target, prediction):
    """The scores of the definition, by lists of rows."""
    matrix = np.zeros((5, 5))
    for t, p in zip(target, prediction, strict=True):
        matrix[t, p] += 1
    return {name: pytest.approx(float(value)) for name, value in scores(matrix, poor_quality=True).items()}


def test_each_subgroup_is_scored_as_if_it_were_alone():
    table, target, prediction = case()
    found = subgroups(table, target, prediction, CLASSES, "task2")
    age, number = table["age"], table["rec_id"]
    expected = {
        "age": {"<3": age < 3, "3-6": (age >= 3) & (age < 6), "6-9": (age >= 6) & (age < 9), ">=9": age >= 9},
        "gender": {"male": table["gender"] == 0, "female": table["gender"] == 1},
        "site": {site: table["loc"] == site for site in ("p1", "p2", "p3", "p4")},
        "date": {f"q{k + 1}": (number > 150 * k) & (number <= 150 * (k + 1)) for k in range(4)},
    }
    for division, groups in expected.items():
        assert found[division].keys() == groups.keys()
        for name, rows in groups.items():
            its = found[division][name]
            assert (its["n"], its["n_patients"]) == (rows.sum(), table["patient_id"][rows].nunique())
            wanted = slow(target[rows], prediction[rows])
            assert {key: its[key] for key in wanted} == wanted
    assert found["date"]["q2"]["range"] == [151, 300]
    noise = found["noise"]
    assert [noise[name]["n"] for name in ("q1", "q2", "q3", "q4")] == pytest.approx([150] * 4, abs=25)
    assert noise["q1"]["range"][1] < noise["q2"]["range"][0]
    low, high = noise["q4"]["range"]
    rows = table["noise_db"].between(low, high)
    assert noise["q4"]["score"] == slow(target[rows], prediction[rows])["score"]


def test_other_proportions_repeat_the_items_of_a_class():
    table, target, prediction = case()
    found = subgroups(table, target, prediction, CLASSES, "task2")["proportions"]
    assert found.keys() == {"3x CAS", "3x DAS", "3x CAS & DAS"}
    for label, name in ((2, "3x CAS"), (4, "3x CAS & DAS")):
        rows = np.repeat(np.arange(600), np.where(target == label, 3, 1))
        assert found[name]["score"] == slow(target[rows], prediction[rows])["score"]
        assert found[name]["specificity"] == slow(target, prediction)["specificity"]


def test_a_quarter_is_of_recordings_however_many_events_they_have():
    table, target, prediction = case()
    events = table.loc[np.repeat(np.arange(600), np.where(table["rec_id"] <= 150, 9, 1))]
    rows = events.index.to_numpy()
    found = subgroups(events, target[rows], prediction[rows], CLASSES, "task2")
    assert found["date"]["q1"]["range"] == [1, 150]
    assert found["date"]["q1"]["n"] == 9 * 150


@pytest.mark.parametrize("which", ["normal", "adventitious"])
def test_a_group_of_few_patients_is_left_out(which):
    table, target, prediction = case()
    target = np.where(table["loc"] == "p1", 1, target)
    ours = np.flatnonzero(table["loc"] == "p1")
    patients = sorted(set(table["patient_id"].iloc[ours]))
    for count, is_there in ((MIN_PATIENTS - 1, False), (MIN_PATIENTS, True)):
        now = target.copy()
        few = ours[table["patient_id"].iloc[ours].isin(patients[:count])]
        now[ours] = 2 if which == "normal" else 0
        now[few] = 0 if which == "normal" else 2
        found = subgroups(table, now, prediction, CLASSES, "task2")
        assert ("p1" in found["site"]) is is_there


def test_the_worst_is_the_one_of_the_lowest_score():
    table, target, prediction = case()
    rows = (table["gender"] == 1).to_numpy()
    prediction[rows] = (target[rows] + 1) % 5
    found = subgroups(table, target, prediction, CLASSES, "task2")
    worst = worst_subgroup(found)
    assert worst == {"name": "gender female", **found["gender"]["female"]}
    assert worst["score"] == 0
    assert worst_subgroup({}) is None


def test_the_report_names_the_worst_subgroup_in_one_line():
    table, target, prediction = case()
    report = evaluate_predictions(
        table.assign(target=target), np.eye(5)[prediction], CLASSES, resp_subject(2, 2), "valid", n_bootstrap=5
    )
    worst = report.metrics["worst_subgroup"]
    lines = [line for line in report.table().splitlines() if line.startswith("worst subgroup")]
    assert len(lines) == 1
    assert lines[0].startswith(f"worst subgroup: {worst['name']}, score {worst['score']:.3f} (")
    assert report.metrics["subgroups"] == subgroups(table, target, prediction, CLASSES, "task2")


def test_two_classes_have_no_other_proportions():
    table, target, prediction = case()
    found = subgroups(table, np.minimum(target, 2), np.minimum(prediction, 2), resp_classes(2, 1), "task2")
    assert "proportions" not in found
    assert "age" in found


def test_other_data_has_none_and_without_audio_there_is_none_by_noise():
    table, target, prediction = case()
    assert subgroups(table.drop(columns="rec_id"), target, prediction, CLASSES, "task2") is None
    assert subgroups(table, target, prediction, CLASSES, "icbhi") is None
    assert "noise" not in subgroups(table.drop(columns="noise_db"), target, prediction, CLASSES, "task2")
