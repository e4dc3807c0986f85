"""The figures of docs/models.md."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from torch import nn

from tests.tiny import ROOT


@pytest.fixture(scope="module")
def model_costs():
    path = ROOT / "benchmarks"
    sys.path.insert(0, str(path))
    try:
        spec = importlib.util.spec_from_file_location("model_costs", path / "model_costs.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["model_costs"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path))
        del sys.modules["model_costs"]


class Attending(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Recurring(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


@pytest.mark.parametrize(
    ("network", "shape", "macs"),
    [
        (nn.Linear(10, 7), (10,), 70),
        (nn.Conv2d(3, 8, 5, padding=2), (3, 16, 16), 3 * 8 * 25 * 256),
        (nn.Conv1d(4, 4, 3, stride=2, groups=4), (4, 9), 4 * 3 * 4),
        (Attending(), (2, 7, 8), 2 * 2 * 7 * 7 * 8),
        (Recurring(10, 32, batch_first=True), (5, 10), 5 * 4 * (10 * 32 + 32 * 32)),
    ],
)
def test_multiplications_are_those_that_one_counts_by_hand(model_costs, network, shape, macs):
    assert model_costs.count_macs(network, shape) == macs
    assert torch.backends.mkldnn.enabled


def test_each_network_has_one_line_with_all_its_configs(model_costs):
    names = ["task1_1_lightcnn", "task1_1_lightcnn_wav2vec", "task2_1_lightcnn", "task1_1_knn", "memory_gru"]
    cnn, gru = model_costs.costs([ROOT / "configs" / f"{name}.json" for name in names])
    assert cnn.configs == ("task1_1_lightcnn", "task1_1_lightcnn_wav2vec", "task2_1_lightcnn")
    # Four convolutions without padding, each halved, and the last layer; two classes.
    sizes, kernels, channels = [216, 102, 47, 21], [9, 7, 5, 3], [1, 32, 64, 96, 96]
    by_hand = sum((sizes[n] * kernels[n]) ** 2 * channels[n] * channels[n + 1] for n in range(4))
    assert cnn.shape == (1, 224, 224)
    assert cnn.macs == by_hand + 9600 * 2
    assert gru.macs == 5 * 3 * (10 * 32 + 32 * 32) + 32 * 19
    table = model_costs.table([cnn, gru])
    assert "| `GRU` | 10 x 5 | 4.85 k | 20.8 k | memory_gru |" in table
