import csv
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import classification_report, confusion_matrix

from data_loader.subject import resp_subject
from tests.slow_scores import NUMBERS, slow_scores
from trainer.report import evaluate_predictions
from utils.errors import UserError

TASK_22, TASK_12 = resp_subject(2, 2), resp_subject(1, 2)
CLASSES = ["Normal", "Poor Quality", "CAS", "DAS", "CAS & DAS"]


def _table(target, patients=9, split="test", seed=0):
    n = len(target)
    patient = np.random.default_rng(seed).integers(0, patients, n)
    return pd.DataFrame(
        {
            "wav_name": [f"{i}.wav" for i in range(n)],
            "patient_id": [f"p{p}" for p in patient],
            "split": split,
            "target": target,
        }
    )


def _sure(prediction, n_classes=5):
    return np.eye(n_classes, dtype=np.float32)[prediction]


def _random_case(n=120, n_classes=5, seed=1):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, n_classes, n)
    prob = generator.random((n, n_classes), dtype=np.float32)
    prob[np.arange(n), target] += 0.3
    return _table(target), prob / prob.sum(1, keepdims=True)


@pytest.mark.parametrize("task, n_classes", [(1, 2), (1, 5), (2, 3), (2, 5)])
def test_scores_are_those_of_the_slow_definition(task, n_classes):
    table, prob = _random_case(n_classes=n_classes)
    report = evaluate_predictions(table, prob, CLASSES[:n_classes], resp_subject(task, 2), "test", n_bootstrap=10)
    expected = slow_scores(table["target"], prob.argmax(1), poor_quality=task == 2)
    assert {name: report.metrics[name] for name in NUMBERS} == pytest.approx(expected)


def test_per_class_figures_are_those_of_scikit_learn():
    table, prob = _random_case()
    report = evaluate_predictions(table, prob, CLASSES, TASK_22, "test", n_bootstrap=10)
    expected = classification_report(
        table["target"], prob.argmax(1), labels=range(5), target_names=CLASSES, output_dict=True, zero_division=np.nan
    )
    for name in CLASSES:
        row = report.metrics["per_class"][name]
        theirs = expected[name]
        assert row == pytest.approx(
            {
                "support": theirs["support"],
                "recall": theirs["recall"],
                "precision": theirs["precision"],
                "f1": theirs["f1-score"],
            }
        )
    theirs = confusion_matrix(table["target"], prob.argmax(1), labels=range(5)).tolist()
    assert report.metrics["confusion_matrix"] == theirs


def test_perfect_predictions_score_one_and_wrong_ones_zero():
    target = np.arange(60) % 5
    perfect = evaluate_predictions(_table(target), _sure(target), CLASSES, TASK_22, "test").metrics
    worst = evaluate_predictions(_table(target), _sure((target + 1) % 5), CLASSES, TASK_22, "test").metrics
    for name in NUMBERS:
        assert perfect[name] == 1
        assert perfect["ci95"][name] == [1, 1]
        assert worst[name] == 0
        assert worst["ci95"][name] == [0, 0]


def test_an_absent_class_is_null_and_printed_as_not_available(tmp_path):
    target = np.array([0, 0, 1, 3, 3, 3] * 5)
    report = evaluate_predictions(_table(target), _sure(target), CLASSES, TASK_22, "test", n_bootstrap=50)
    absent = {"support": 0, "recall": None, "precision": None, "f1": None}
    assert report.metrics["per_class"]["CAS"] == absent
    assert report.metrics["per_class"]["DAS"] == {"support": 15, "recall": 1, "precision": 1, "f1": 1}
    row = next(line for line in report.table().splitlines() if line.strip().startswith("CAS  "))
    assert row.split() == ["CAS", "0", "n/a", "n/a", "n/a"]


def test_scores_without_any_adventitious_item_are_null(tmp_path):
    target = np.zeros(20, dtype=int)
    report = evaluate_predictions(_table(target), _sure(target), CLASSES, TASK_22, "test", n_bootstrap=50)
    assert report.metrics["specificity"] == 1
    assert report.metrics["score"] is None
    assert report.metrics["ci95"]["score"] is None
    assert report.metrics["ci95"]["specificity"] == [1, 1]
    report.save(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["score"] is None
    assert "n/a" in report.table()


def test_a_single_patient_has_no_interval():
    target = np.array([0, 2, 3, 0])
    report = evaluate_predictions(_table(target, patients=1), _sure(target), CLASSES, TASK_22, "test")
    assert report.metrics["ci95"] == dict.fromkeys(NUMBERS)
    assert report.metrics["n_patients"] == 1
    assert "[n/a]" in report.table()


def test_inter_and_intra_are_reported_as_if_each_were_alone():
    table, prob = _random_case()
    table["split"] = ["inter", "intra"] * 60
    whole = evaluate_predictions(table, prob, CLASSES, TASK_22, "test", n_bootstrap=50)
    for part in ("inter", "intra"):
        rows = (table["split"] == part).to_numpy()
        alone = evaluate_predictions(table[rows], prob[rows], CLASSES, TASK_22, part, n_bootstrap=50).metrics
        assert "inter" not in alone
        assert whole.metrics[part] == {key: alone[key] for key in whole.metrics[part]}
        assert f"\n{part}: 60 items of" in whole.table()
    assert whole.metrics["inter"]["n"] + whole.metrics["intra"]["n"] == whole.metrics["n"] == 120


def test_the_same_seed_gives_the_same_report_in_any_order_of_rows():
    table, prob = _random_case()
    first = evaluate_predictions(table, prob, CLASSES, TASK_22, "test", seed=3, n_bootstrap=100).metrics
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = evaluate_predictions(table.iloc[order], prob[order], CLASSES, TASK_22, "test", seed=3, n_bootstrap=100)
    other = evaluate_predictions(table, prob, CLASSES, TASK_22, "test", seed=4, n_bootstrap=100).metrics
    assert shuffled.metrics == first
    assert other["ci95"] != first["ci95"]
    assert other["score"] == first["score"]


def test_the_saved_files_say_what_the_report_says(tmp_path):
    table, prob = _random_case(n=30)
    table.loc[0, "wav_name"] = 'a "quoted", name\n.wav'
    table["event_id"], table["start_ms"], table["end_ms"] = range(30), 10, 136
    table.index = range(100, 130)
    extra = {"command": "python test.py -r x.pth", "config": {"name": "demo"}}
    report = evaluate_predictions(table, prob, CLASSES, TASK_12, "valid", n_bootstrap=20, extra=extra)
    report.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert saved == report.metrics
    assert saved["task"] == "1-2"
    assert saved["config"] == {"name": "demo"}
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wav_name"] for row in rows] == table["wav_name"].tolist()
    assert list(rows[0]) == [
        *("wav_name", "patient_id", "event_id", "start_ms", "end_ms", "target", "prediction"),
        *(f"prob_{name}" for name in CLASSES),
    ]
    assert [row["target"] for row in rows] == [CLASSES[t] for t in table["target"]]
    read = np.array([[row[f"prob_{name}"] for name in CLASSES] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(read, prob)
    assert [row["prediction"] for row in rows] == [CLASSES[p] for p in prob.argmax(1)]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["confusion_matrix.png", "metrics.json", "predictions.csv"]


def test_no_name_is_a_formula_for_a_spreadsheet(tmp_path):
    table, prob = _random_case(n=30)
    names = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", '=HYPERLINK("http://x","y")', "<b>|</b>", "a=1.wav"]
    table.loc[: len(names) - 1, "wav_name"] = names
    table.loc[0, "patient_id"] = "=2+2"
    evaluate_predictions(table, prob, CLASSES, TASK_12, "valid", n_bootstrap=2).save(tmp_path)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wav_name"] for row in rows[: len(names)]] == [*("'" + name for name in names[:6]), *names[6:]]
    assert rows[0]["patient_id"] == "'=2+2"


def test_the_printed_columns_are_aligned():
    # More items than the shortest class name, CAS, has letters.
    table, prob = _random_case(n=9000)
    lines = evaluate_predictions(table, prob, CLASSES, TASK_22, "test", n_bootstrap=20).table().splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("class"))
    assert len({len(line) for line in lines[start : start + 6]}) == 1
    start = next(i for i, line in enumerate(lines) if "annotated / predicted" in line)
    assert len({len(line) for line in lines[start : start + 6]}) == 1


def test_what_cannot_be_scored_is_said(tmp_path):
    target = np.array([0, 2])
    prob = _sure(target)
    prob[1, 0] = np.nan
    with pytest.raises(UserError, match="not finite for 1 of 2 items"):
        evaluate_predictions(_table(target), prob, CLASSES, TASK_22, "test")
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_predictions(_table(target)[:0], prob[:0], CLASSES, TASK_22, "valid")
    with pytest.raises(ValueError, match="need probabilities"):
        evaluate_predictions(_table(target), _sure(target)[:, :4], CLASSES, TASK_22, "test")
    with pytest.raises(ValueError, match="targets must lie"):
        evaluate_predictions(_table(np.array([0, 5])), _sure(target), CLASSES, TASK_22, "test")
    with pytest.raises(ValueError, match="extra would hide score"):
        evaluate_predictions(_table(target), _sure(target), CLASSES, TASK_22, "test", extra={"score": 1})
