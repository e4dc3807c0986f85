"""What the layers of a network make of one item."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from logger.layer_outputs import MAX_CHANNELS, MAX_LAYERS, layer_outputs


class _Net(nn.Module):
    """Layers of all sorts; one activation runs twice, and one works in place on what a convolution gave."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 20, 3)
        self.norm = nn.BatchNorm2d(20)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.attention = nn.MultiheadAttention(20, 1)
        self.linear = nn.Linear(20, 4)
        self.tanh = nn.Tanh()

    def forward(self, x):
        x = self.relu(self.norm(self.pool(self.relu(self.conv(x)))))
        x = self.attention(*[x.flatten(2).transpose(1, 2)] * 3)[0].mean(1)
        return self.tanh(self.linear(x))


def test_convolution_pooling_and_activation_layers_are_shown_in_the_order_in_which_they_run():
    torch.manual_seed(0)
    net, item = _Net().eval(), torch.randn(1, 1, 10, 12)
    found = layer_outputs(net, item)
    assert [layer.name for layer in found] == ["conv Conv2d", "relu ReLU", "pool MaxPool2d", "tanh Tanh"]
    assert [layer.shape for layer in found] == [(20, 8, 10), (20, 8, 10), (20, 4, 5), (4,)]
    assert [len(layer.values) for layer in found] == [MAX_CHANNELS, MAX_CHANNELS, MAX_CHANNELS, 4]
    with torch.no_grad():
        # As the convolution gave it, before the activation changed it in place.
        expected = net.conv(item)[0, :MAX_CHANNELS].numpy()
        assert (expected < 0).any()
        np.testing.assert_array_equal(found[0].values, expected)
        np.testing.assert_array_equal(found[3].values, net(item)[0].numpy())


def test_no_mark_is_left_on_the_model_the_item_or_the_generators():
    net = nn.Sequential(nn.ReLU(inplace=True), _Net(), nn.Dropout(0.5)).train()
    net[1].norm.eval()
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    item = torch.randn(1, 1, 10, 12)
    before = item.clone()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    layer_outputs(net, item)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(item, before)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_model_that_fails_keeps_no_hooks_either():
    net = nn.Sequential(nn.ReLU(), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError):
        layer_outputs(net, torch.zeros(1, 4))
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_network_of_timm_is_shown_as_well():
    names = [layer.name for layer in layer_outputs(timm.create_model("resnet18"), torch.zeros(1, 3, 64, 64))]
    assert names[:3] == ["conv1 Conv2d", "act1 ReLU", "maxpool MaxPool2d"]
    assert "layer4.1.act2 ReLU" in names


def test_a_very_deep_network_shows_its_first_layers():
    net = nn.Sequential(*(nn.Tanh() for _ in range(MAX_LAYERS + 5)))
    assert len(layer_outputs(net, torch.zeros(1, 3))) == MAX_LAYERS
