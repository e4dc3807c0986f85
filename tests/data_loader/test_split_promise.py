"""No patient on both sides, whatever a config asks for: through the tables and the loader, as train.py does."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_loader.annotation import parse_name
from data_loader.classes import coarse, resp_classes
from data_loader.resp_data_loader import RespDataLoader
from data_loader.splits import missing_classes, split_items
from data_loader.tables import TASK2_COLUMNS
from utils.errors import UserError

LABELS = resp_classes(2, 2)
# A patient: what stands before the age in a file's name (nothing for an anonymous one), age, gender, labels of the
# recordings. A numbered one may have another age in some recordings; two anonymous ones may be one.
NUMBERED = st.tuples(st.integers(1, 9).map(str), st.sampled_from(["0.5", "7.0"]), st.sampled_from("01"))
ANONYMOUS = st.tuples(st.just(""), st.sampled_from(["0.5", "5.3", "7.0", "7"]), st.sampled_from("01"))
RECORDINGS = st.one_of(
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=6),
    st.tuples(st.sampled_from(LABELS), st.integers(1, 6)).map(lambda pair: [pair[0]] * pair[1]),  # of one class
)
PATIENTS = st.lists(st.tuples(st.one_of(NUMBERED, ANONYMOUS), RECORDINGS), min_size=2, max_size=14)
SPECS = st.one_of(
    st.floats(0.02, 0.95),
    st.integers(1, 20),
    st.tuples(st.integers(2, 5), st.integers(0, 4)).map(lambda f: {"folds": f[0], "fold": f[1] % f[0]}),
)


def who(stem):
    """Whose recording it is, from its name alone."""
    patient, age, gender, *_ = stem.split("_")
    return patient or (float(age), gender)


def table_of(patients, order=0):
    rows = []
    for (patient, age, gender), labels in patients:
        for label in labels:
            stem = f"{patient}_{age}_{gender}_p1_{len(rows)}"
            name = parse_name(Path(f"{stem}.wav"))
            rows.append(
                {
                    **vars(name),
                    "wav_name": f"{stem}.wav",
                    "duration_ms": 1000,
                    "label_21": coarse(label),
                    "label_22": label,
                    "split": "train",
                    "path": f"BioCAS2022/train2022_wav/{stem}.wav",
                }
            )
    table = pd.DataFrame(rows, columns=TASK2_COLUMNS)
    return table.iloc[np.random.default_rng(order).permutation(len(table))] if order else table


def sides(patients, spec, seed=0, order=0):
    """The names on the two sides, and all names."""
    with tempfile.TemporaryDirectory() as folder:
        table_of(patients, order).to_csv(Path(folder) / "task2.csv", index=False)
        loader = RespDataLoader(folder, validation_split=spec, task=2, level=2, seed=seed)
        names = loader.dataset.names
    return names[loader.train_indices], names[loader.valid_indices], names


@pytest.fixture(autouse=True)
def _quiet():
    logger = logging.getLogger("resp")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(PATIENTS, SPECS, st.integers(0, 3))
def test_no_patient_is_on_both_sides_and_no_recording_is_lost(patients, spec, seed):
    try:
        train, valid, names = sides(patients, spec, seed)
    except UserError:
        # Nothing that could be split may be refused.
        groups = {who(name.removesuffix(".wav")) for name in table_of(patients)["wav_name"]}
        n_items = sum(len(labels) for _, labels in patients)
        needed = spec["folds"] if isinstance(spec, dict) else 2
        assert len(groups) < needed or (isinstance(spec, int) and spec >= n_items)
        return
    assert not set(map(who, train)) & set(map(who, valid))
    assert sorted([*train, *valid]) == sorted(names)
    assert len(train)
    assert len(valid)
    again = sides(patients, spec, seed, order=1)
    assert set(again[0]) == set(train)
    assert set(again[1]) == set(valid)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(PATIENTS, st.integers(2, 5), st.integers(0, 3))
def test_every_recording_is_validated_in_exactly_one_fold(patients, folds, seed):
    assume(len({who(name) for name in table_of(patients)["wav_name"]}) >= folds)
    parts = [sides(patients, {"folds": folds, "fold": fold}, seed)[1] for fold in range(folds)]
    assert sorted(np.concatenate(parts)) == sorted(table_of(patients)["wav_name"].str.removesuffix(".wav"))
    for fold, part in enumerate(parts):
        others = np.concatenate(parts[:fold] + parts[fold + 1 :])
        assert not set(map(who, part)) & set(map(who, others))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(PATIENTS, SPECS)
def test_exactly_the_classes_that_a_side_lacks_are_named_with_their_patients(patients, spec):
    table = table_of(patients)
    labels = table["label_22"].map(LABELS.index).to_numpy()
    try:
        split = split_items(labels, table["patient_id"], spec)
    except UserError:
        assume(False)
    sentences = missing_classes(labels, table["patient_id"], split, LABELS)
    expected = []
    for index, name in enumerate(LABELS):
        on = [index in labels[rows] for rows in (split.train, split.valid)]
        if on[0] != on[1]:
            number = len({who(stem) for stem in table["wav_name"][labels == index]})
            expected.append((f"{'validation' if on[0] else 'training'} has no {name}:", f"of {number} patient"))
    assert len(sentences) == len(expected)
    for sentence, (start, number) in zip(sentences, expected, strict=True):
        assert sentence.startswith(start)
        assert number in sentence


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.sampled_from([0.2, 0.5, 3, {"folds": 2, "fold": 1}]), st.integers(0, 5))
def test_a_class_of_two_patients_is_on_both_sides(n_others, spec, seed):
    patients = [((str(100 + number), "5.0", "0"), ["Normal"] * 4) for number in range(n_others)]
    patients += [((str(number), "5.0", "0"), ["DAS", "Normal"]) for number in (1, 2)]
    train, valid, _ = sides(patients, spec, seed)
    for side in (train, valid):
        assert {"1", "2"} & set(map(who, side))
