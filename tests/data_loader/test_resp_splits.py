"""RespDataLoader: who is trained on and who is validated on."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from tests.resp_loader import STFT, batches, loader
from utils.errors import UserError


def test_training_and_validation_share_no_patient(tiny_data):
    for options in ({"task": 1, "level": 2}, {"task": 2, "level": 2}, {"validation_split": {"folds": 3, "fold": 2}}):
        resp = loader(tiny_data, **STFT, **options)
        patients = resp.dataset.patients
        train = {patients[i] for batch in batches(resp) for i in batch.index}
        valid = {patients[i] for batch in resp.split_validation() for i in batch.index}
        assert train
        assert valid
        assert not train & valid


def test_the_random_split_is_had_on_request_and_warns(tiny_data, caplog):
    resp = loader(tiny_data, **STFT, split_by="random")
    patients = resp.dataset.patients
    assert set(patients[resp.train_indices]) & set(patients[resp.valid_indices])
    assert "too good" in caplog.text


@pytest.mark.parametrize("validation_split", [0.3, {"folds": 3, "fold": 1}, "64/16/20"])
@pytest.mark.parametrize("split_by", ["patient", "recording", "random"])
def test_a_split_keeps_whole_what_it_goes_by(tiny_data, validation_split, split_by, caplog):
    resp = loader(tiny_data, **STFT, validation_split=validation_split, split_by=split_by)
    sides = [resp.train_indices, resp.valid_indices, resp.test_indices]
    assert sorted(np.concatenate(sides)) == list(range(len(resp.dataset)))
    assert len(resp.test_indices) > 0 if validation_split == "64/16/20" else not len(resp.test_indices)
    recordings, patients = resp.dataset.recordings, resp.dataset.patients
    parted = {}
    for name, groups in (("recording", recordings), ("patient", patients)):
        together = [set(groups[rows]) for rows in sides]
        parted[name] = sum(count > 1 for count in Counter(itertools.chain(*together)).values())
    assert (parted["patient"] == 0) is (split_by == "patient")
    assert (parted["recording"] == 0) is (split_by != "random")
    warned = f"split_by is {split_by}: {parted['patient']} patients are on more than one side" in caplog.text
    assert warned is (split_by != "patient")


def test_a_test_part_is_neither_trained_nor_validated_on(tiny_data):
    resp = loader(tiny_data, **STFT, validation_split="64/16/20")
    drawn = {i for epoch in (1, 2) for batch in batches(resp, epoch) for i in batch.index.tolist()}
    drawn |= {i for batch in resp.split_validation() for i in batch.index.tolist()}
    assert drawn == {*resp.train_indices, *resp.valid_indices}
    assert not drawn & {*resp.test_indices}


@pytest.mark.parametrize(
    "validation_split, split_by",
    [({"folds": 3, "fold": 1}, "patient"), ({"folds": 2, "fold": 0}, "age"), ("40/30/30", "patient")],
)
def test_one_task_can_have_the_sides_of_another(tiny_data, validation_split, split_by):
    options = {"validation_split": validation_split, "split_by": split_by}
    events = loader(tiny_data, **options)
    alike = loader(tiny_data, **options, split_as="2-2")
    recordings = loader(tiny_data, **options, task=2, level=2)
    if split_by == "patient":
        assert {*events.dataset.groups[events.valid_indices]} != {*alike.dataset.groups[alike.valid_indices]}
    for side in ("train_indices", "valid_indices", "test_indices"):
        own, other = ({*one.dataset.groups[getattr(one, side)]} for one in (alike, recordings))
        # Not every patient has an event.
        assert own == other & {*alike.dataset.groups}


def test_sides_of_another_task_are_of_whole_patients(tiny_data):
    with pytest.raises(UserError, match=r"split_as: is 2-2, but split_by random"):
        loader(tiny_data, split_as="2-2", split_by="random")


def test_what_a_split_cannot_go_by_is_refused_by_name(tiny_data):
    with pytest.raises(UserError, match=r"split_by: is 'patients' \(choose from patient, "):
        loader(tiny_data, **STFT, split_by="patients")
