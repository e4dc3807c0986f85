"""The base of all data loaders, with a data set that knows nothing of lungs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from base.base_data_loader import BaseDataLoader
from utils.errors import UserError


class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.tensor(index**2)


def loader(validation_split=0.3, shuffle=True, **options):
    return BaseDataLoader(Squares(), 4, shuffle, validation_split, 0, **options)


@pytest.mark.parametrize("validation_split, n_valid", [(0.3, 3), (4, 4), (0, 0), (0.0, 0)])
def test_items_come_to_one_side_or_the_other(validation_split, n_valid):
    base = loader(validation_split)
    assert len(base.valid_indices) == n_valid
    assert sorted([*base.train_indices, *base.valid_indices]) == list(range(10))
    assert base.n_samples == 10 - n_valid
    assert (base.split_validation() is None) == (n_valid == 0)


def test_the_seed_draws_the_split():
    assert np.array_equal(loader(seed=1).valid_indices, loader(seed=1).valid_indices)
    assert any(not np.array_equal(loader(seed=1).valid_indices, loader(seed=s).valid_indices) for s in (2, 3, 4))


def test_validation_comes_in_order_and_training_in_a_new_one_each_epoch():
    base = loader(seed=3)
    valid = torch.cat(list(base.split_validation()))
    assert valid.tolist() == [index**2 for index in base.valid_indices]
    orders = []
    for epoch in (1, 2, 1):
        base.set_epoch(epoch)
        orders.append(torch.cat(list(base)).tolist())
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("drawn", range(1, 8))
def test_processes_go_on_together_wherever_another_number_of_them_stopped(world_size, drawn):
    one = loader(validation_split=0)
    one.set_epoch(1)
    left = [index**2 for index in list(one.sampler)[drawn:]]
    loaders = [loader(validation_split=0, rank=rank, world_size=world_size) for rank in range(world_size)]
    for its in loaders:
        its.set_epoch(1, drawn)
    batches = [list(its) for its in loaders]
    assert {len(its) for its in batches} == {loaders[0].batches_left(drawn)}
    # To the last, no process has fewer items than another.
    assert all(len({len(batch) for batch in step}) == 1 for step in zip(*batches, strict=True))
    again = torch.cat([torch.cat(its) for its in batches]).tolist()
    assert set(again) >= set(left)
    assert len(again) - len(left) <= 2 * (world_size - 1)
    # And a stop after their first step loses nothing.
    seen = {int(value) for its in batches for value in its[0]}
    assert {*left} - seen <= {index**2 for index in list(one.sampler)[loaders[0].items_after(1, drawn) :]}


@pytest.mark.parametrize("validation_split", [1.0, 10, 11, -1, {"folds": 5, "fold": 0}])
def test_an_impossible_split_is_said(validation_split):
    with pytest.raises(UserError, match=r"data_loader\.args\.validation_split"):
        loader(validation_split)


def test_an_error_in_place_of_a_batch_is_raised_as_it_is():
    wrong = UserError("a.wav", "is gone", "fetch it")
    with pytest.raises(UserError) as caught:
        list(loader(collate_fn=lambda items: wrong))
    assert caught.value is wrong
