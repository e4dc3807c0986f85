"""Training and validation never share a patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_loader.classes import resp_classes
from data_loader.splits import (
    Split,
    is_test_split,
    missing_classes,
    parted_groups,
    split_in_order,
    split_items,
)
from utils.errors import UserError

ITEMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 15)), min_size=20, max_size=200)


def make(rows):
    labels = [label for label, _ in rows]
    patients = [f"patient{patient}" for _, patient in rows]
    return labels, patients, [f"item{number:04d}" for number in range(len(rows))]


def random_rows(n_patients=60, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (int(rng.choice(4, p=[0.7, 0.1, 0.15, 0.05])), patient)
        for patient in range(n_patients)
        for _ in range(rng.integers(3, 25))
    ]


@settings(max_examples=60, deadline=None)
@given(ITEMS, st.sampled_from([0.2, 0.5, 7, {"folds": 2, "fold": 1}]), st.integers(0, 3))
def test_no_patient_is_on_both_sides(rows, validation_split, seed):
    labels, patients, _names = make(rows)
    if len(set(patients)) < 2:
        return
    split = split_items(labels, patients, validation_split, seed)
    sides = [{patients[i] for i in rows} for rows in (split.train, split.valid)]
    assert not sides[0] & sides[1]
    assert sorted([*split.train, *split.valid]) == list(range(len(rows)))


@settings(max_examples=20, deadline=None)
@given(ITEMS, st.integers(2, 5), st.integers(0, 3))
def test_folds_share_out_all_items_once(rows, folds, seed):
    labels, patients, _names = make(rows)
    if len(set(patients)) < folds:
        return
    parts = [split_items(labels, patients, {"folds": folds, "fold": f}, seed).valid for f in range(folds)]
    assert sorted(np.concatenate(parts)) == list(range(len(rows)))


def test_the_split_does_not_depend_on_the_order_of_the_rows():
    rows = random_rows()
    labels, patients, names = make(rows)
    straight = split_items(labels, patients, 0.2)
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = split_items(*([values[i] for i in order] for values in (labels, patients)), 0.2)
    assert {names[i] for i in straight.valid} == {names[order[i]] for i in mixed.valid}


@pytest.mark.parametrize("validation_split", [0.2, {"folds": 5, "fold": 3}])
def test_every_class_is_shared_out_as_asked(validation_split):
    labels, patients, _names = make(random_rows())
    split = split_items(labels, patients, validation_split)
    counts = np.bincount(labels)
    np.testing.assert_allclose(np.bincount(np.array(labels)[split.valid], minlength=4) / counts, 0.2, atol=0.06)


def test_a_count_is_met_as_nearly_as_whole_patients_allow():
    labels, patients, names = make(random_rows())
    assert abs(len(split_items(labels, patients, 150).valid) - 150) <= 25
    assert len(split_items(labels, names, 150).valid) == pytest.approx(150, abs=3)


def said(caplog):
    return [record.getMessage().split(" (")[0] for record in caplog.records]


@pytest.mark.parametrize(("validation_split", "asked"), [(10, "10"), (0.02, "6"), (1, "1")])
def test_a_small_validation_grows_by_a_rare_class_and_it_is_said(caplog, validation_split, asked):
    caplog.set_level("INFO")
    labels, patients, _names = make([(0, n // 10) for n in range(200)] + [(n % 2, 30 + n // 40) for n in range(80)])
    valid = split_items(labels, patients, validation_split).valid
    assert 1 in np.array(labels)[valid]
    assert said(caplog) == [
        f"validation_split is {validation_split}: validation has {len(valid)} items, asked: {asked}"
    ]
    assert len(valid) >= 40


@pytest.mark.parametrize("validation_split", [100, 105, 0.5, {"folds": 4, "fold": 1}, "50/25/25", 0])
def test_a_validation_of_nearly_the_size_that_was_asked_for_is_no_news(caplog, validation_split):
    caplog.set_level("INFO")
    labels, patients, _names = make([(0, n // 10) for n in range(200)])
    split_items(labels, patients, validation_split)
    split_in_order(range(200), patients, validation_split)
    assert not said(caplog)


def test_the_size_of_each_side_that_is_chosen_or_scored_on_is_said(caplog):
    caplog.set_level("INFO")
    patients = ["a"] * 10 + ["b"] * 30 + ["c"] * 60
    order = [ord(patient) for patient in patients]
    split = split_in_order(order, patients, "80/10/10")
    assert (len(split.train), len(split.valid), len(split.test)) == (10, 30, 60)
    split_in_order(order, patients, 0.2)
    assert said(caplog) == [
        "validation_split is 80/10/10: validation has 30 items, asked: 10",
        "validation_split is 80/10/10: the test part has 60 items, asked: 10",
        "validation_split is 0.2: validation has 60 items, asked: 20",
    ]


@pytest.mark.parametrize("name", ["test", "Test", "TEST2023", "testing", "inter", "Intra"])
def test_a_test_set_is_one_in_any_spelling(name):
    assert is_test_split(name)
    assert not is_test_split("Train")


def test_a_random_split_puts_patients_on_both_sides():
    labels, patients, names = make(random_rows())
    split = split_items(labels, names, 0.2)
    assert {patients[i] for i in split.train} & {patients[i] for i in split.valid}


def test_the_seed_draws_another_split():
    labels, patients, _names = make(random_rows())
    assert set(split_items(labels, patients, 0.2, seed=1).valid) != set(
        split_items(labels, patients, 0.2, seed=2).valid
    )


def test_a_class_of_two_patients_comes_to_both_sides_and_a_class_of_one_is_named():
    rows = random_rows() + [(4, 0)] * 6 + [(4, 1)] * 6 + [(5, 2)] * 3
    labels, patients, _names = make(rows)
    split = split_items(labels, patients, 0.2)
    assert {4} <= {labels[i] for i in split.train} & {labels[i] for i in split.valid}
    sentences = missing_classes(labels, patients, split, ["a", "b", "c", "d", "Stridor", "Rhonchi"])
    assert len(sentences) == 1
    assert "has no Rhonchi: all of it (3 items of 1 patient) is in" in sentences[0]


@settings(max_examples=40, deadline=None)
@given(ITEMS, st.sampled_from(["64/16/20", "1/1/1", "0.5/0.25/0.25"]), st.integers(0, 3))
def test_three_shares_take_each_item_once_and_keep_patients_whole(rows, shares, seed):
    labels, patients, _names = make(rows)
    if len(set(patients)) < 3:
        return
    split = split_items(labels, patients, shares, seed)
    sides = [split.train, split.valid, split.test]
    assert all(map(len, sides))
    assert sorted(np.concatenate(sides)) == list(range(len(rows)))
    assert parted_groups(patients, split) == 0


@pytest.mark.parametrize("split_by", ["patient", "random"])
def test_three_shares_are_of_that_size_and_of_every_class(split_by):
    labels, patients, names = make(random_rows())
    split = split_items(labels, {"patient": patients, "random": names}[split_by], "64/16/20")
    for rows, share in ((split.train, 0.64), (split.valid, 0.16), (split.test, 0.20)):
        np.testing.assert_allclose(np.bincount(np.array(labels)[rows]) / np.bincount(labels), share, atol=0.06)
    assert (parted_groups(patients, split) > 0) is (split_by == "random")


def test_a_class_that_the_test_part_lacks_is_named():
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    sentences = missing_classes([0, 1, 0, 1, 0, 0], ["a", "b", "c", "d", "e", "f"], split, ["Normal", "Wheeze"])
    expected = "the test part has no Wheeze: all of it (2 items of 2 patients) is in training and validation"
    assert sentences == [expected]


@pytest.mark.parametrize(
    "validation_split, what",
    [
        (1.5, "leave items on both sides"),
        (10_000, "leave items on both sides"),
        ({"folds": 5}, "expected"),
        ("64/16", "three shares are written"),
        ("80/0/20", "none of them 0"),
        ("64/16/-20", "three shares are written"),
        ("most", "three shares are written"),
        ({"folds": 5, "fold": 5}, "fold 5 of 5"),
        ({"folds": 500, "fold": 0}, "take fewer folds"),
    ],
)
def test_an_impossible_split_is_said(validation_split, what):
    labels, patients, _names = make(random_rows())
    with pytest.raises(UserError, match=what):
        split_items(labels, patients, validation_split)


def test_no_validation_keeps_all_items():
    split = split_items([0, 1], ["a", "b"], 0)
    assert (len(split.train), len(split.valid)) == (2, 0)


@pytest.mark.real
def test_folds_of_the_real_set_are_stratified_by_patient(real_tables):
    table = real_tables.of(1)
    labels = table["label_12"].map(resp_classes(1, 2).index).to_numpy()
    for fold in range(5):
        split = split_items(labels, table["patient_id"], {"folds": 5, "fold": fold})
        valid = set(table["patient_id"].iloc[split.valid])
        assert not valid & set(table["patient_id"].iloc[split.train])
        shares = np.bincount(labels[split.valid], minlength=7) / np.bincount(labels)
        common = [0, 2, 5]  # Normal, Wheeze, Fine Crackle: of many patients
        np.testing.assert_allclose(shares[common], 0.2, atol=0.03)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=4, max_size=30),
    st.sampled_from([0.05, 0.5, 1, {"folds": 2, "fold": 0}, {"folds": 3, "fold": 2}]),
    st.sampled_from(["patient", "random"]),
)
@example([(0, 0), (0, 0), (0, 0), (1, 1)], 0.05, "patient")
def test_no_side_is_left_without_items(rows, validation_split, split_by):
    labels, patients, names = make(rows)
    if len(set(patients)) < (validation_split["folds"] if isinstance(validation_split, dict) else 2):
        return
    split = split_items(labels, {"patient": patients, "random": names}[split_by], validation_split)
    assert len(split.train)
    assert len(split.valid)


def test_a_billion_folds_are_refused_before_memory_is_taken_for_them():
    with pytest.raises(UserError, match="needs 1000000000000 groups, there are 2"):
        split_items([0, 1], ["a", "b"], {"folds": 10**12, "fold": 0})
