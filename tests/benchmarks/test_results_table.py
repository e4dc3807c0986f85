"""The tables of results."""

from __future__ import annotations

import pytest

SCORES = {"sensitivity": 0.8, "specificity": 0.9, "average_score": 0.85, "harmonic_score": 0.847, "score": 0.8485}


@pytest.fixture
def results_table(benchmark_script):
    """The script."""
    return benchmark_script("results_table")


@pytest.fixture
def run(tmp_path):
    """The folder of a run of two minutes."""
    (tmp_path / "train.log").write_text("2026-01-01 00:00:00 a\n2026-01-01 00:02:00 b\n")
    return tmp_path


def report(loader=None, **changes):
    config = {"arch": {"type": "LightCNN", "args": {}}, "data_loader": {"args": loader or {}}}
    return {"task": "2-1", "epoch": 5, **SCORES, "ci95": {"score": [0.8, 0.9]}, "config": config, **changes}


def test_a_run_is_a_row(results_table, run):
    given = report({"input_dir": "processed_stft"}, decide="argmax")
    wanted = "| 2-1 | LightCNN | stft | 0.800 | 0.900 | 0.850 | 0.847 | **0.849** [0.800, 0.900] | 5 | 2 |"
    assert results_table.row(given, run) == wanted


@pytest.mark.parametrize("loader", [{}, {"input_dir": None}])
def test_a_run_on_waveforms_names_no_features(results_table, run, loader):
    assert results_table.row(report(loader), run).startswith("| 2-1 | LightCNN |  | 0.800 |")


def test_what_is_not_defined_is_said_so(results_table, run):
    given = report(sensitivity=None, score=None, ci95={"score": None})
    assert "| n/a | 0.900 | 0.850 | 0.847 | **n/a** [n/a, n/a] | 5 |" in results_table.row(given, run)


def test_data_without_a_normal_class_have_no_score(results_table, run):
    given = report(ci95={"accuracy": [0.1, 0.2]})
    for name in SCORES:
        del given[name]
    assert "| n/a | n/a | n/a | n/a | **n/a** [n/a, n/a] | 5 |" in results_table.row(given, run)


def test_a_report_apart_from_its_run_has_no_minutes(results_table, tmp_path):
    assert results_table.row(report(), tmp_path).endswith("| 5 | n/a |")


@pytest.mark.parametrize(
    "changes, model",
    [
        ({"decide": "counted"}, "LightCNN, decided by counted"),
        ({"each_event_alone": SCORES}, "LightCNN, in context"),
        ({"decide": "score", "each_event_alone": SCORES}, "LightCNN, decided by score, in context"),
        ({"decide": "argmax"}, "LightCNN"),
    ],
)
def test_other_decisions_than_the_most_probable_class_of_each_item_are_named(results_table, run, changes, model):
    assert results_table.row(report(**changes), run).startswith(f"| 2-1 | {model} |")


def out_of_fold(**changes):
    scores = {"score": 0.9, "score_mean": 0.89, "score_std": 0.012}
    members = {"a": {**scores, "parameters": 100}, "b": {**scores, "parameters": 500}}
    minutes = {f"{name}-seed0-fold{fold}": 5.0 for name in members for fold in range(2)}
    given = {"task": "2-2", "parameters": 1200, "minutes": minutes, "minutes_together": 20.0, "members": members}
    decisions = {"argmax": {"score": 0.9}, "counted": {"score": 0.9}}
    return given | scores | {"ci95": {"score": [0.8, 0.95]}, "decisions": decisions} | changes


def test_a_group_says_how_it_decides_as_a_run_does(results_table):
    row, *_ = results_table.out_of_fold_rows(out_of_fold(decide="counted"), "best, folds by date")
    assert row.startswith("| 2-2 | best, folds by date, decided by counted | 4 |")


def test_a_group_of_data_without_a_normal_class_has_no_score(results_table):
    members = {name: {"accuracy": 0.7, "parameters": 100} for name in ("a", "b")}
    changes = {"ci95": {"accuracy": [0.1, 0.2]}, "decisions": {"argmax": {"accuracy": 0.7}}, "members": members}
    given = {key: value for key, value in out_of_fold(**changes).items() if not key.startswith("score")}
    first, member, _ = results_table.out_of_fold_rows(given, "esc50")
    assert "| **n/a** [n/a, n/a] | n/a, n/a | n/a |  | 20 |" in first
    assert "| n/a | n/a, n/a |  |  | 10 |" in member
