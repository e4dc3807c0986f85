"""Validation on later dates, other ages, more noise."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.audio_data_loader import AudioDataLoader
from data_loader.resp_data_loader import RespDataLoader
from data_loader.shifts import SHIFTS, shifted_split
from data_loader.splits import parted_groups, split_in_order
from utils.arguments import check_arguments
from utils.errors import UserError

# Of each patient: how many items, and what they are ordered by.
PATIENTS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=5, max_size=40)


def make(patients, seed=0):
    """Values and patients of the items, mixed."""
    rows = [(value, f"p{number}") for number, (count, value) in enumerate(patients) for _ in range(count)]
    order = np.random.default_rng(seed).permutation(len(rows))
    return np.array([rows[i][0] for i in order], dtype=float), np.array([rows[i][1] for i in order])


@settings(max_examples=60, deadline=None)
@given(PATIENTS, st.integers(2, 5))
def test_folds_follow_each_other_in_the_order_and_keep_patients_whole(patients, folds):
    values, who = make(patients)
    parts = [split_in_order(values, who, {"folds": folds, "fold": fold}) for fold in range(folds)]
    assert sorted(np.concatenate([part.valid for part in parts])) == list(range(len(values)))
    largest = max(count for count, _ in patients)
    for earlier, later in itertools.pairwise(parts):
        assert values[earlier.valid].max() <= values[later.valid].min()
    for part in parts:
        assert parted_groups(who, part) == 0
        assert len(part.valid)
        assert sorted([*part.train, *part.valid]) == list(range(len(values)))
        if len(patients) > 4 * folds and largest < len(values) / (4 * folds):
            assert abs(len(part.valid) - len(values) / folds) <= largest


def test_a_share_takes_the_end_of_the_order_and_three_shares_the_middle_and_the_end():
    values, who = make([(10, value) for value in range(10)])
    split = split_in_order(values, who, 0.2)
    assert set(values[split.valid]) == {8, 9}
    assert set(values[split_in_order(values, who, 30).valid]) == {7, 8, 9}
    three = split_in_order(values, who, "60/20/20")
    assert [set(values[rows]) for rows in (three.valid, three.test)] == [{6, 7}, {8, 9}]
    assert not len(split_in_order(values, who, 0).valid)


def test_the_order_of_rows_does_not_matter_even_for_patients_of_one_value():
    patients = [(7, 3)] * 12
    sides = []
    for seed in (0, 1):
        values, who = make(patients, seed)
        sides.append(set(who[split_in_order(values, who, {"folds": 5, "fold": 2}).valid]))
    assert sides[0] == sides[1]


def test_more_folds_than_patients_are_refused():
    with pytest.raises(UserError, match="take fewer folds"):
        split_in_order([1.0, 2.0], ["a", "b"], {"folds": 3, "fold": 0})


def table(rows):
    names = ["patient_id", "rec_id", "age", "path"]
    return pd.DataFrame([(*row, f"{row[1]}.wav") for row in rows], columns=names)


def test_a_patient_has_the_median_of_their_recordings_however_many_events_these_have(tmp_path):
    # The last of a's has many events; d has the very first and the last but one.
    rows = [("a", 1, 4.0), ("a", 2, 4.0), *[("a", 9, 4.0)] * 8, ("b", 3, 2.0), ("b", 4, 2.0), ("c", 5, 1.0)]
    rows += [("d", 0, 0.5), ("d", 7, 0.5), ("d", 8, 0.5)]
    items = table(rows)
    who = items["patient_id"].to_numpy()
    by_fold = [shifted_split(items, who, tmp_path, {"folds": 4, "fold": fold}, "date") for fold in range(4)]
    assert [set(who[split.valid]) for split in by_fold] == [{"a"}, {"b"}, {"c"}, {"d"}]
    oldest = shifted_split(items, who, tmp_path, {"folds": 4, "fold": 3}, "age")
    assert set(who[oldest.valid]) == {"a"}


@pytest.mark.parametrize("task", [1, 2])
@pytest.mark.parametrize("split_by", SHIFTS)
def test_a_loader_validates_on_the_end_of_the_order(tiny_data, task, split_by, caplog):
    caplog.set_level("INFO")
    options = {"task": task, "input_dir": "processed_stft", "normalize": False, "split_by": split_by}
    resp = RespDataLoader(str(tiny_data), validation_split={"folds": 3, "fold": 2}, **options)
    patients = resp.dataset.groups
    train, valid = (set(patients[rows]) for rows in (resp.train_indices, resp.valid_indices))
    assert valid
    assert not valid & train
    if split_by != "noise":
        of = resp.dataset.table.drop_duplicates("path").groupby("patient_id")[SHIFTS[split_by]].median()
        assert of[sorted(valid)].min() >= of[sorted(train)].max()
    assert f"split_by {split_by}: " in caplog.text


def test_noise_is_measured_from_the_audio(own_data):
    import soundfile

    options = {"task": 2, "duration": 1.0, "normalize": False, "split_by": "noise"}
    folds = {"folds": 6, "fold": 5}
    before = RespDataLoader(str(own_data), validation_split=folds, **options)
    loud = str(np.unique(before.dataset.groups[before.train_indices])[0])
    for path in before.dataset.table["path"][before.dataset.groups == loud]:
        samples, rate = soundfile.read(own_data / path)
        noise = np.random.default_rng(0).normal(0, 0.2, len(samples))
        soundfile.write(own_data / path, np.clip(samples + noise, -1, 1), rate, subtype="PCM_16")
    after = RespDataLoader(str(own_data), validation_split=folds, **options)
    assert loud not in before.dataset.groups[before.valid_indices]
    assert loud in after.dataset.groups[after.valid_indices]


def test_audio_that_is_not_there_is_said_by_name(own_data):
    audio = next((own_data / "BioCAS2022" / "train2022_wav").iterdir())
    audio.unlink()
    with pytest.raises(UserError, match=audio.name):
        RespDataLoader(str(own_data), task=2, input_dir="processed_stft", validation_split=0.3, split_by="noise")


def test_data_that_says_nothing_of_it_is_refused(tmp_path):
    items = pd.DataFrame({"path": ["a.wav", "b.wav"], "group": ["a", "b"]})
    with pytest.raises(UserError, match="this data set has no column age"):
        shifted_split(items, items["group"].to_numpy(), tmp_path, 0.5, "age")
    given_args = {"data_dir": "x", "adapter": "esc50", "split_by": "date"}
    with pytest.raises(UserError, match="split_by: is 'date'"):
        check_arguments(AudioDataLoader, given_args, "data_loader.args")
