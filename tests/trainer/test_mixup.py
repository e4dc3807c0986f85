"""Training on mixtures of two items."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from base.base_model import Detailed
from data_loader.augment import Augmentation
from model.detail_losses import FrameSupervised
from model.loss import CrossEntropy
from tests.tiny import tiny_run
from tests.trainer.test_resume import same
from trainer.mixup import Mix, Mixup
from trainer.objective import batch_loss, batch_mass

CPU = torch.device("cpu")
MIX = Mix(0.7, torch.tensor([2, 0, 1]))
TARGET = torch.tensor([0, 1, 1])


def test_two_items_are_mixed_by_their_shares():
    data = torch.randn(3, 2, 4, 5).contiguous(memory_format=torch.channels_last)
    (mixed,) = MIX.inputs(data)
    torch.testing.assert_close(mixed, 0.7 * data + 0.3 * torch.stack([data[2], data[0], data[1]]))
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_a_mixture_of_waveforms_is_as_long_as_the_longer():
    _, lengths = MIX.inputs(torch.zeros(3, 9), torch.tensor([9, 2, 5]))
    assert lengths.tolist() == [9, 9, 5]
    assert len(MIX.inputs(torch.zeros(3, 9), None)) == 1


@pytest.mark.parametrize("weight", [None, [0.2, 0.8]])
def test_the_loss_is_that_of_both_by_their_shares(weight):
    output, others = torch.randn(3, 2), TARGET[MIX.others]
    loss = CrossEntropy(weight)
    expected = 0.7 * loss(output, TARGET) + 0.3 * loss(output, others)
    torch.testing.assert_close(batch_loss(loss, output, TARGET, None, MIX), expected)
    # What several batches of a step are weighted by does not depend on how they are mixed.
    assert batch_mass(loss, TARGET, None) == batch_mass(loss, others, None)


def test_details_are_mixed_as_the_classes_are():
    output = Detailed(torch.randn(3, 2), torch.randn(3, 4, 1))
    details = torch.rand(3, 4, 1)
    loss = FrameSupervised(2.0)
    expected = 0.7 * loss(output.logits, TARGET, output.details, details)
    expected += 0.3 * loss(output.logits, TARGET[MIX.others], output.details, details[MIX.others])
    torch.testing.assert_close(batch_loss(loss, output, TARGET, details, MIX), expected)


def test_an_item_counts_as_its_larger_part():
    assert MIX.larger(TARGET).tolist() == TARGET.tolist()
    assert Mix(0.2, MIX.others).larger(TARGET).tolist() == [1, 0, 1]


def test_so_many_batches_are_mixed_by_shares_of_the_distribution():
    torch.manual_seed(0)
    mixes = [Mixup(0.25, 0.4).draw(6, CPU) for _ in range(2000)]
    shares = torch.tensor([mix.share for mix in mixes if mix])
    assert len(shares) == pytest.approx(500, abs=60)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)
    assert all(sorted(mix.others.tolist()) == list(range(6)) for mix in mixes if mix)


def test_without_mixing_no_random_number_is_drawn():
    torch.manual_seed(0)
    assert Mixup(0.0, 0.2).draw(6, CPU) is None
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert Augmentation().mixup == 0.0


def test_a_run_trains_on_mixtures_and_counts_every_item(tiny_data, tmp_path):
    plain, mixed, again = (
        tiny_run(tiny_data, tmp_path, data_loader__args__augment=augment, trainer__epochs=1)
        for augment in (None, {"mixup": 1.0, "mixup_alpha": 5.0}, {"mixup": 1.0, "mixup_alpha": 5.0})
    )
    seen, train_batch = [], mixed._train_batch

    def noted(epoch, items, batch):
        seen.append((batch, train_batch(epoch, items, batch)))
        return seen[-1][1]

    mixed._train_batch = noted
    for trainer in (plain, mixed, again):
        trainer.train()
    weights = [dict(trainer.model.state_dict()) for trainer in (plain, mixed, again)]
    assert not same(weights[0], weights[1])
    assert same(weights[1], weights[2])
    assert any(not torch.equal(batch.target, found.target) for batch, found in seen)
    assert all(sorted(batch.target.tolist()) == sorted(found.target.tolist()) for batch, found in seen)
    # The outputs that were learnt from are those of mixtures.
    batch, found = seen[0]
    assert float(found.loss) != pytest.approx(float(F.cross_entropy(found.output, batch.target)), rel=1e-4)
