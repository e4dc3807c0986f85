"""The mel CNN for environmental sounds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model import architectures
from model.audio_classifier import AudioClassifier


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AudioClassifier(10)


def spectrograms(n=4, seed=0, offset=-50.0):
    return offset + 15 * torch.randn(n, 2, 64, 344, generator=torch.Generator().manual_seed(seed))


def test_the_layers_are_those_of_the_source(model):
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        *((2, 8, 5, 2), (8, 16, 3, 2)),
        *((16, 32, 3, 2), (32, 64, 3, 2)),
    ]
    assert [type(layer).__name__ for layer in model.features] == ["Conv2d", "ReLU", "BatchNorm2d"] * 4
    assert model.classifier.in_features == 64
    # 408 + 1,168 + 4,640 + 18,496 of the convolutions, 240 of the normalisation, 650 of the linear layer.
    assert sum(p.numel() for p in model.parameters()) == 25602
    for layer in convolutions:
        assert not layer.bias.any()
        inputs = layer.in_channels * layer.kernel_size[0] ** 2
        assert float(layer.weight.detach().std()) == pytest.approx((2 / 1.01 / inputs) ** 0.5, rel=0.1)


def test_pictures_of_the_size_of_the_source_and_of_others_give_logits(model):
    assert model(spectrograms()).shape == (4, 10)
    assert model(torch.randn(3, 2, 16, 50)).shape == (3, 10)


def test_in_training_a_batch_is_normalised_by_its_own_mean_and_deviation(model):
    with torch.no_grad():
        one = model.train()(spectrograms())
        other = model(3 * spectrograms() + 100)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_in_evaluation_an_item_does_not_depend_on_the_others_and_is_normalised_as_those_trained_on(model):
    seen = []
    model.features.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for seed in range(3):
            model.train()(spectrograms(seed=seed))
        model.eval()
        loud = spectrograms(1, seed=9, offset=0.0)
        together = model(torch.cat([spectrograms(3), loud]))[-1:]
        torch.testing.assert_close(together, model(loud), atol=1e-4, rtol=0)
    # An item 50 dB above those of the training stays above them.
    assert float(seen[-1].mean()) == pytest.approx(50 / 15, abs=0.1)


def test_a_step_trains_all_of_it(model):
    nn.functional.cross_entropy(model(spectrograms()), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_input_that_does_not_fit_is_said(model):
    architecture = architectures["AudioClassifier"]
    args = {"label_dim": 10, "indim": 2}
    assert architecture.input_problem(args, (2, 64, 344)) is None
    assert "indim 2, the items are (1, 64, 344)" in architecture.input_problem(args, (1, 64, 344))
    assert "the items are (256, 128)" in architecture.input_problem(args, (256, 128))
