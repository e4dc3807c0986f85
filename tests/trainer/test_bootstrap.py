from __future__ import annotations

import numpy as np
import pytest

from tests.slow_scores import NUMBERS, slow_scores
from trainer.bootstrap import confidence_intervals, paired_differences, resample_counts

PEOPLE = [f"p{i}" for i in range(6)]


@pytest.fixture
def case():
    """Targets, two predictions and patients. Few patients are adventitious: some resamples have no such item."""
    generator = np.random.default_rng(5)
    patient = np.repeat(PEOPLE, 5)
    target = np.where(patient == "p0", 2, generator.integers(0, 2, 30))
    one = generator.integers(0, 3, 30)
    other = np.where(generator.random(30) < 0.5, target, one)
    return target, one, other, patient


def slow_resamples(patient):
    """The rows of each resample: those of a patient as often as he was drawn."""
    for times in resample_counts(6, 300, seed=4):
        yield [i for who, k in zip(PEOPLE, times, strict=True) for _ in range(k) for i in np.where(patient == who)[0]]


def percentiles(draws):
    assert np.isnan(draws["score"]).any()
    return {name: np.nanpercentile(values, [2.5, 97.5]) for name, values in draws.items()}


def test_intervals_are_those_of_a_plain_bootstrap_over_patients(case):
    target, prediction, _, patient = case
    draws = {name: [] for name in NUMBERS}
    for rows in slow_resamples(patient):
        for name, value in slow_scores(target[rows], prediction[rows], poor_quality=True).items():
            draws[name].append(value)
    found = confidence_intervals(target, prediction, patient, 3, "task2", seed=4, n_bootstrap=300)
    for name, expected in percentiles(draws).items():
        assert found[name] == pytest.approx(expected), name


def test_a_difference_is_that_of_a_plain_bootstrap_which_draws_the_same_patients_for_both(case):
    target, one, other, patient = case

    def difference(rows):
        ours, theirs = (slow_scores(target[rows], each[rows], poor_quality=True) for each in (one, other))
        return {name: theirs[name] - ours[name] for name in NUMBERS}

    draws = {name: [] for name in NUMBERS}
    for rows in slow_resamples(patient):
        for name, value in difference(rows).items():
            draws[name].append(value)
    found = paired_differences(target, one, other, patient, 3, "task2", seed=4, n_bootstrap=300)
    whole = difference(range(30))
    for name, expected in percentiles(draws).items():
        assert found[name].value == pytest.approx(whole[name]), name
        assert found[name].interval == pytest.approx(expected), name


def test_what_predicts_the_same_differs_by_nothing_for_certain(case):
    target, one, _, patient = case
    found = paired_differences(target, one, one.copy(), patient, 3, "task2")
    assert found == {name: (0, [0, 0]) for name in NUMBERS}


def test_a_difference_the_other_way_round_is_its_negative(case):
    target, one, other, patient = case
    there = paired_differences(target, one, other, patient, 3, "task2")
    back = paired_differences(target, other, one, patient, 3, "task2")
    assert there["score"].value > 0
    for name in NUMBERS:
        low, high = there[name].interval
        assert back[name].value == -there[name].value
        assert back[name].interval == pytest.approx([-high, -low])


def test_a_difference_of_paired_predictions_is_surer_than_each_of_them():
    # All recordings of half of the patients are hard for both; the other hears a few more of the rest.
    generator = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    target = np.zeros(400, dtype=np.int64)
    one = np.where(patient % 2, 0, 2)
    other = np.where(generator.random(400) < 0.1, 0, one)
    alone = confidence_intervals(target, one, patient, 3, "task2")["accuracy"]
    value, (low, high) = paired_differences(target, one, other, patient, 3, "task2")["accuracy"]
    assert 0 < low < value < high
    assert high - low < (alone[1] - alone[0]) / 3


def test_what_is_not_defined_and_what_one_patient_says_have_no_difference():
    target = np.array([0, 0, 1, 0])
    one, other = np.array([0, 2, 1, 0]), np.array([0, 0, 1, 0])
    found = paired_differences(target, one, other, np.array(["a", "a", "b", "b"]), 3, "task2")
    assert found["sensitivity"] == found["score"] == (None, None)
    assert found["specificity"].value == pytest.approx(1 / 3)
    alone = paired_differences(target, one, other, np.array(["a"] * 4), 3, "task2")
    assert alone["specificity"] == (pytest.approx(1 / 3), None)
    assert confidence_intervals(target, one, np.array(["a"] * 4), 3, "task2") == dict.fromkeys(NUMBERS)


def test_resamples_draw_patients_with_replacement():
    times = resample_counts(7, 4000, seed=0)
    assert (times.sum(1) == 7).all()
    np.testing.assert_allclose(times.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(times.var(0), 6 / 7, atol=0.08)


def test_intervals_are_wider_when_the_items_of_a_patient_go_together():
    target = np.zeros(400, dtype=int)
    prediction = np.repeat(np.arange(40) % 2, 10)
    together = confidence_intervals(target, prediction, np.repeat(np.arange(40), 10), 3, "task2")["accuracy"]
    apart = confidence_intervals(target, prediction, np.arange(400), 3, "task2")["accuracy"]
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
