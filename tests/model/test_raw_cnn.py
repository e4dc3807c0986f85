"""The CNN on raw waveforms."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from model import architectures
from model.raw_cnn import RawCNN1d
from tests import sounds
from tests.ready_config import train_resume_and_test
from tests.tiny import ROOT, run

ARGS = {"label_dim": 2, "indim": 1, "samples": 10_000}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RawCNN1d(4)


def test_the_layers_are_those_of_the_source(model):
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv1d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        *((1, 128, 80, 4), (128, 128, 3, 1)),
        *((128, 256, 3, 1), (256, 512, 3, 1)),
    ]
    weights = 80 * 128 + 3 * 128 * (128 + 256) + 3 * 256 * 512
    assert sum(p.numel() for p in model.parameters() if p.ndim == 3) == weights


def test_a_window_gives_logits(model):
    # 10,000 samples, by 4 and four times by 4 again.
    assert model.features(torch.randn(1, 1, 10_000)).shape == (1, 512, 9)
    assert model(torch.randn(2, 10_000)).shape == (2, 4)
    assert RawCNN1d(4, indim=2, samples=2048)(torch.randn(2, 2, 2048)).shape == (2, 4)


def test_every_part_is_trained_and_the_loss_falls():
    torch.manual_seed(0)
    model = RawCNN1d(2, samples=1024)
    x, y = torch.randn(6, 1024), torch.tensor([0, 1] * 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_an_input_that_does_not_fit_is_said():
    problem = architectures["RawCNN1d"].input_problem
    assert problem(ARGS, (10_000,)) is None
    assert problem(ARGS | {"indim": 2}, (2, 10_000)) is None
    assert "a window of (10000,), the items are (8000,)" in problem(ARGS, (8000,))
    assert "the items are (-1,)" in problem(ARGS, (-1,))
    assert "the items are (10000,)" in problem(ARGS | {"indim": 2}, (10_000,))
    assert "the items are (1, 64, 201)" in problem(ARGS, (1, 64, 201))
    assert "pools 1024 samples, a window has 1000" in problem(ARGS | {"samples": 1000}, (1000,))


def test_the_ready_config_is_trained_resumed_and_tested(tiny_data, tmp_path):
    train_resume_and_test("task1_1_rawcnn1d", tiny_data, tmp_path)


def test_the_config_for_genres_is_trained_and_tested(tmp_path):
    sounds.write_fma(tmp_path / "data")
    sets = [
        f"trainer.save_dir={tmp_path}",
        "trainer.epochs=1",
        "trainer.tensorboard=false",
        "data_loader.args.num_workers=0",
    ]
    where = ["-d", "cpu", "--data-dir", tmp_path / "data", "--set", *sets]
    assert run("train", "-c", ROOT / "configs" / "fma_rawcnn1d.json", *where) == 0
    assert run("test", "-r", tmp_path / "model_best.pth", "-d", "cpu", "--out-dir", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["classes"][3] == "Hip-Hop"
