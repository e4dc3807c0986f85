"""Balancing classes."""

from __future__ import annotations

import numpy as np

from data_loader.sampling import OversamplingSampler, WeightedSampler

# Normal, Poor Quality, and two adventitious classes, one of them more frequent than Normal.
LABELS = np.repeat([0, 1, 2, 3], [50, 8, 5, 70])


def drawn(sampler, epoch=1):
    sampler.set_epoch(epoch)
    items = np.array(list(sampler))
    assert len(items) == len(sampler)
    return items, np.bincount(LABELS[items], minlength=4)


def test_oversampling_fills_adventitious_classes_up_to_the_normal_count():
    items, counts = drawn(OversamplingSampler(np.arange(len(LABELS)), LABELS, [2, 3]))
    assert list(counts) == [50, 8, 50, 70]
    assert set(items) == set(range(len(LABELS)))


def test_oversampling_repeats_training_items_only():
    inside = np.arange(0, len(LABELS), 2)
    items, _ = drawn(OversamplingSampler(inside, LABELS, [2, 3]))
    assert set(items) == set(inside)


def test_oversampling_draws_other_repetitions_each_epoch():
    sampler = OversamplingSampler(np.arange(len(LABELS)), LABELS, [2, 3])
    first, second = (np.bincount(drawn(sampler, epoch)[0], minlength=len(LABELS)) for epoch in (1, 2))
    assert (first != second).any()
    assert (np.bincount(drawn(sampler, 1)[0], minlength=len(LABELS)) == first).all()


def test_weights_draw_all_classes_equally_often():
    sampler = WeightedSampler(np.arange(len(LABELS)), LABELS)
    total = sum(drawn(sampler, epoch)[1] for epoch in range(40))
    np.testing.assert_allclose(total / total.sum(), 0.25, atol=0.03)
    assert len(sampler) == len(LABELS)


def test_square_root_weights_draw_a_class_as_the_square_root_of_its_number():
    inside = np.arange(0, len(LABELS), 2)
    sampler = WeightedSampler(inside, LABELS, power=0.5)
    total = sum(drawn(sampler, epoch)[1] for epoch in range(60))
    expected = np.sqrt(np.bincount(LABELS[inside]))
    np.testing.assert_allclose(total / total.sum(), expected / expected.sum(), atol=0.02)
    assert len(sampler) == len(inside)
