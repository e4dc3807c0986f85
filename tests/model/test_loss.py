from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from model import losses
from model.loss import CrossEntropy, Focal, balanced_weights, weight_problem

WEIGHT = [0.2, 0.5, 0.3]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, 3, generator=generator), torch.randint(3, (20,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_cross_entropy_is_that_of_torch(batch, weight, smoothing):
    reference = torch.nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight), label_smoothing=smoothing)
    torch.testing.assert_close(losses["cross_entropy"](weight, smoothing)(*batch), reference(*batch))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_focal_without_focus_is_cross_entropy(batch, weight):
    torch.testing.assert_close(losses["focal"](0.0, weight)(*batch), CrossEntropy(weight)(*batch))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_of_two_classes_is_that_of_torchvision(gamma):
    generator = torch.Generator().manual_seed(0)
    logit, target = torch.randn(30, generator=generator), torch.randint(2, (30,), generator=generator)
    reference = sigmoid_focal_loss(logit, target.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(Focal(gamma)(torch.stack([torch.zeros(30), logit], 1), target), reference)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_where_the_answer_is_certain(gamma):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    loss = Focal(gamma)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [CrossEntropy(WEIGHT), Focal(2.0, WEIGHT)])
def test_low_precision_logits_lose_no_precision_in_the_loss(batch, loss):
    output, target = batch[0].bfloat16(), batch[1]
    assert loss(output, target).dtype == torch.float32
    torch.testing.assert_close(loss(output, target), loss(output.float(), target), rtol=0, atol=0)


@pytest.mark.parametrize("loss", [CrossEntropy([0.0, 1.0], 0.1), Focal(2.0, [0.0, 1.0])])
def test_batch_of_classes_without_weight_is_finite(loss):
    output = torch.zeros(2, 2, requires_grad=True)
    value = loss(output, torch.tensor([0, 0]))
    value.backward()
    assert value.isfinite()
    assert output.grad.isfinite().all()


def test_weights_move_with_the_module():
    assert CrossEntropy(WEIGHT).to(torch.float64).weight.dtype == torch.float64
    assert "weight" in dict(Focal(weight=WEIGHT).named_buffers())


def test_balanced_weights_are_those_of_scikit_learn():
    counts = [1303, 177, 469]
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(counts) == pytest.approx(list(expected))


def test_class_that_does_not_occur_weighs_nothing():
    assert balanced_weights([6, 0, 2]) == pytest.approx([8 / 12, 0, 2])
    assert balanced_weights([0, 0]) == [0, 0]


def test_wrong_weights_are_named_before_training():
    assert weight_problem(None, 3) is weight_problem("balanced", 3) is weight_problem(WEIGHT, 3) is None
    assert "3 weights for 2 classes" in weight_problem(WEIGHT, 2)
    for bad in ([-1.0, 1.0], [float("nan"), 1.0], [0.0, 0.0]):
        assert "not negative" in weight_problem(bad, 2)


def test_unresolved_balanced_is_not_taken_for_weights():
    with pytest.raises(ValueError, match="balanced_weights"):
        CrossEntropy("balanced")


@pytest.mark.parametrize("name", ["cross_entropy", "fine_cross_entropy", "frame_supervised"])
@pytest.mark.parametrize("smoothing", [-0.1, 1.5, float("nan")])
def test_a_label_smoothing_that_is_no_share_is_refused(name, smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be between"):
        losses[name](label_smoothing=smoothing)


@pytest.mark.parametrize("gamma", [-2.0, -0.1, float("nan")])
def test_a_focus_on_what_is_classified_well_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma is"):
        Focal(gamma)
