from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import metrics
from model.metric import SCORINGS, confusion_matrix, scores

PAIRS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=60)
    )
)


def slow_scores(targets: list[int], predictions: list[int], poor_quality: bool) -> dict[str, float]:
    """The definitions of the challenge, item by item."""
    normal = normal_found = adventitious = adventitious_found = right = 0
    for target, prediction in zip(targets, predictions, strict=True):
        right += target == prediction
        if target == 0:
            normal += 1
            normal_found += prediction == 0
        elif not (poor_quality and target == 1):
            adventitious += 1
            adventitious_found += prediction == target
    sp = normal_found / normal if normal else math.nan
    se = adventitious_found / adventitious if adventitious else math.nan
    average = (se + sp) / 2
    harmonic = 0.0 if se == sp == 0 else 2 * se * sp / (se + sp)
    return {
        "accuracy": right / len(targets),
        "specificity": sp,
        "sensitivity": se,
        "average_score": average,
        "harmonic_score": harmonic,
        "score": (average + harmonic) / 2,
    }


@given(PAIRS)
@settings(max_examples=100, deadline=None)
def test_metrics_are_those_of_a_plain_loop_over_the_items(case):
    n_classes, pairs = case
    target = torch.tensor([pair[0] for pair in pairs])
    prediction = torch.tensor([pair[1] for pair in pairs])
    logits = torch.nn.functional.one_hot(prediction, n_classes).float()
    for task in (1, 2):
        expected = slow_scores(target.tolist(), prediction.tolist(), poor_quality=task == 2)
        for name, value in expected.items():
            metric = metrics.get(name) or metrics[f"{name}_task{task}"]
            assert metric(logits, target) == pytest.approx(value, nan_ok=True)
            assert metric(prediction, target) == pytest.approx(value, nan_ok=True)


@given(PAIRS)
@settings(max_examples=50, deadline=None)
def test_metrics_agree_with_scikit_learn(case):
    n_classes, pairs = case
    target, prediction = np.array(pairs).T
    output, truth = torch.tensor(prediction), torch.tensor(target)
    matrix = confusion_matrix(output, truth, n_classes)
    assert matrix.dtype == torch.int64
    expected = sklearn.metrics.confusion_matrix(target, prediction, labels=range(n_classes))
    np.testing.assert_array_equal(matrix.numpy(), expected)
    assert metrics["accuracy"](output, truth) == pytest.approx(sklearn.metrics.accuracy_score(target, prediction))
    if (target == 0).any():
        recall = sklearn.metrics.recall_score(target == 0, prediction == 0)
        assert metrics["specificity"](output, truth) == pytest.approx(recall)
    for task, first in ((1, 1), (2, 2)):
        if (target >= first).any():
            labels = list(range(first, n_classes))
            recall = sklearn.metrics.recall_score(target, prediction, labels=labels, average="micro", zero_division=0)
            assert metrics[f"sensitivity_task{task}"](output, truth) == pytest.approx(recall)


def test_poor_quality_is_in_no_denominator_but_a_wrong_answer():
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    prediction = torch.tensor([0, 1, 1, 0, 2, 1])
    assert metrics["specificity"](prediction, target) == 0.5
    assert metrics["sensitivity_task2"](prediction, target) == 0.5
    assert metrics["score_task2"](prediction, target) == 0.5
    assert metrics["sensitivity_task1"](prediction, target) == 0.5
    assert metrics["accuracy"](prediction, target) == 0.5


def test_another_adventitious_class_is_not_found():
    assert metrics["sensitivity_task1"](torch.tensor([2, 1]), torch.tensor([1, 1])) == 0.5


def test_nothing_found_scores_zero_and_not_nan():
    target = torch.tensor([0, 2])
    prediction = torch.tensor([2, 0])
    assert metrics["harmonic_score_task2"](prediction, target) == 0
    assert metrics["score_task2"](prediction, target) == 0


def test_absent_classes_give_nan_without_a_warning():
    only_normal = torch.tensor([0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics["specificity"](only_normal, only_normal) == 1
        assert math.isnan(metrics["sensitivity_task1"](only_normal, only_normal))
        assert math.isnan(metrics["score_task2"](only_normal, only_normal))
        assert math.isnan(metrics["score_task2"](only_normal + 2, only_normal + 2))
        assert all(
            math.isnan(metric(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))) for metric in metrics.values()
        )


@pytest.mark.parametrize("poor_quality", [False, True])
def test_many_matrices_at_once_give_what_each_gives_alone(poor_quality):
    matrices = np.random.default_rng(0).integers(0, 3, (4, 5, 3, 3))
    together = scores(matrices, poor_quality)
    for name, values in together.items():
        assert values.shape == (4, 5)
        alone = [[scores(matrix, poor_quality)[name] for matrix in row] for row in matrices]
        np.testing.assert_array_equal(values, alone)


def test_one_matrix_gives_plain_numbers():
    assert {name: float(value) for name, value in scores([[3, 1], [2, 2]], False).items()} == {
        "accuracy": 0.625,
        "specificity": 0.75,
        "sensitivity": 0.5,
        "average_score": 0.625,
        "harmonic_score": pytest.approx(0.6),
        "score": pytest.approx(0.6125),
    }


def test_class_outside_the_task_is_refused():
    with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
        confusion_matrix(torch.tensor([0, 3]), torch.tensor([0, 1]), 3)
    with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
        confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, -1]), 3)
    with pytest.raises(ValueError, match="predictions for"):
        confusion_matrix(torch.tensor([0, 1]), torch.tensor([0]), 3)


def test_the_icbhi_score_is_the_mean_of_sensitivity_and_specificity():
    # Normal: 3 of 4. Crackle: 1 of 2, wheeze: 0 of 1 (called both, which is not exactly it), both: 1 of 1.
    target = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 3, 3])
    assert metrics["icbhi_score"](predicted, target) == pytest.approx((3 / 4 + 2 / 4) / 2)
    found = SCORINGS["icbhi"](confusion_matrix(predicted, target, 4))
    assert {name: float(value) for name, value in found.items()} == {
        **{"accuracy": 5 / 8, "specificity": 3 / 4, "sensitivity": 2 / 4},
        "score": pytest.approx(0.625),
    }
