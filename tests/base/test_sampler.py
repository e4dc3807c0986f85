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


def test_batches_of_similar_sizes_draw_the_same_items_in_an_order_of_their_own_each_epoch():
    rng = np.random.default_rng(0)
    sizes = rng.choice([738, 1229], 203)
    sampler = EpochSampler(np.arange(203), seed=1)
    sampler.batch_similar(sizes, 8)
    orders = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(203))
    assert orders[0] != orders[1]
    batches = [sizes[orders[0][start : start + 8]] for start in range(0, 203, 8)]
    # Of each pool, one batch may have both.
    assert sum(len(set(batch)) > 1 for batch in batches) <= 3
    # Long ones do not all come at the end.
    assert (batches[0] != batches[-2]).any() or (batches[1] != batches[-3]).any()
    sampler.set_epoch(2, start=64)
    assert list(sampler) == orders[1][64:]
