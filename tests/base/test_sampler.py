"""Orders that depend on the seed and the epoch alone."""

from __future__ import annotations

import numpy as np
import pytest

from base.sampler import EpochSampler


def order(epoch=1, seed=0, **options):
    sampler = EpochSampler(np.arange(10, 110), seed=seed, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_is_that_of_the_seed_and_the_epoch():
    assert order() == order()
    assert order() != order(epoch=2)
    assert order() != order(seed=1)
    assert order(epoch=1, seed=2) != order(epoch=2, seed=1)
    assert sorted(order()) == list(range(10, 110))


def test_without_shuffling_the_given_order_is_kept():
    assert order(shuffle=False) == list(range(10, 110))


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_items_out(shuffle):
    parts = [order(shuffle=shuffle, rank=rank, world_size=3) for rank in range(3)]
    assert set().union(*parts) == set(range(10, 110))
    if shuffle:
        assert {len(part) for part in parts} == {34}
    else:
        assert sum(map(len, parts)) == 100
