"""Losses that learn from more than the class."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from data_loader import details
from data_loader.classes import resp_classes
from model.detail_losses import FINE_DIM, FRAME_DIM, FineCrossEntropy, FrameSupervised
from model.loss import CrossEntropy

TARGET = torch.tensor([0, 1, 1, 0])
FINE = torch.tensor([0, 2, 1, 0])


@pytest.fixture
def logits():
    return torch.randn(4, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def frames():
    """Logits and targets of 5 frames; of the first item 2 frames are not known, of the last one none is."""
    generator = torch.Generator().manual_seed(1)
    targets = (torch.rand(4, 5, 3, generator=generator) > 0.5).float()
    targets[0, 3:] = -1.0
    targets[3] = -1.0
    return torch.randn(4, 5, 3, generator=generator), targets


def test_the_fine_classes_are_learnt_and_the_classes_of_the_task_are_scored(logits):
    fine = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    loss = FineCrossEntropy([0.5, 1.0, 2.0], label_smoothing=0.1)
    weight = torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(loss(logits, TARGET, fine, FINE), CrossEntropy(weight.tolist(), 0.1)(fine, FINE))
    torch.testing.assert_close(loss(logits, TARGET), F.cross_entropy(logits, TARGET, label_smoothing=0.1))


@pytest.mark.parametrize("weight", [None, [0.3, 0.7]])
def test_known_frames_are_learnt_beside_the_class(logits, frames, weight):
    heard, targets = frames
    loss = FrameSupervised(0.5, weight, positive_weight=[1.0, 2.0, 3.0])
    items = []
    for its_logits, its_targets in zip(heard, targets, strict=True):
        parts = [
            -(k + 1) * F.logsigmoid(value) if target else -F.logsigmoid(-value)
            for its, theirs in zip(its_logits, its_targets, strict=True)
            for k, (value, target) in enumerate(zip(its, theirs, strict=True))
            if target >= 0
        ]
        items.append(sum(parts) / max(len(parts), 1))
    factors = torch.tensor(weight or [1.0, 1.0])[TARGET]
    of_frames = sum(item * factor for item, factor in zip(items, factors, strict=True)) / factors.sum()
    plain = CrossEntropy(weight)(logits, TARGET)
    torch.testing.assert_close(loss(logits, TARGET, heard, targets), plain + 0.5 * of_frames)
    torch.testing.assert_close(loss(logits, TARGET), plain)


def test_what_is_not_known_has_no_gradient(logits, frames):
    heard, targets = frames
    heard.requires_grad_()
    FrameSupervised()(logits, TARGET, heard, targets).backward()
    assert heard.grad.isfinite().all()
    assert ((heard.grad != 0) == (targets >= 0)).all()


def test_targets_of_more_frames_are_taken_at_the_nearest_ones(logits, frames):
    heard, targets = frames
    twice = targets.repeat_interleave(2, dim=1)
    loss = FrameSupervised()
    torch.testing.assert_close(loss(logits, TARGET, heard, twice), loss(logits, TARGET, heard, targets))


@pytest.mark.parametrize(
    "args",
    [
        {"frame_weight": -1.0},
        {"positive_weight": 0.0},
        {"positive_weight": [1.0, 1.0, -1.0]},
        {"positive_weight": []},
        {"positive_weight": [1.0, 2.0]},
        {"positive_weight": [1.0, 2.0, 3.0, 4.0]},
        {"positive_weight": 1e300},
    ],
)
def test_impossible_arguments_are_refused(args):
    with pytest.raises(ValueError, match=next(iter(args))):
        FrameSupervised(**args)


def test_there_are_as_many_details_as_the_data_loader_tells():
    assert (len(resp_classes(1, 2)), details.FRAME_DIM) == (FINE_DIM, FRAME_DIM)
