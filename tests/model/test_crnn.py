"""The convolutional recurrent network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model import architectures
from model.crnn import CRNN
from tests.ready_config import train_resume_and_test

ARGS = {"label_dim": 2, "indim": 1, "bands": 64, "hidden_dim": 64}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CRNN(3)


@pytest.mark.parametrize("frames", [4, 201, 344])
def test_spectrograms_of_any_duration_give_logits(model, frames):
    assert model(torch.randn(2, 1, 64, frames)).shape == (2, 3)


def test_the_order_of_time_matters(model):
    x = torch.randn(1, 1, 64, 100)
    with torch.no_grad():
        there, back = model.eval()(x), model(x.flip(-1))
    assert not torch.allclose(there, back, atol=1e-4)


def test_every_part_is_trained_and_the_loss_falls(model):
    x, y = torch.randn(6, 1, 64, 40), torch.tensor([0, 1, 2] * 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_an_input_that_does_not_fit_is_said():
    problem = architectures["CRNN"].input_problem
    assert problem(ARGS, (1, 64, 201)) is None
    assert "(1, 64, frames), the items are (1, 32, 201)" in problem(ARGS, (1, 32, 201))
    assert "the items are (2, 64, 201)" in problem(ARGS, (2, 64, 201))
    assert "the items are (10000,)" in problem(ARGS, (10000,))
    assert "pools 16 bands and 4 frames" in problem(ARGS, (1, 64, 3))
    assert "pools 16 bands" in problem(ARGS | {"bands": 8}, (1, 8, 201))
    assert "hidden_dim = 0" in problem(ARGS | {"hidden_dim": 0}, (1, 64, 201))


def test_the_ready_config_is_trained_resumed_and_tested(tiny_data, tmp_path):
    train_resume_and_test("task1_1_crnn", tiny_data, tmp_path)
