from __future__ import annotations

import pytest
import torch

from model.lightcnn import LightCNN


def test_logits_are_one_row_an_item_and_no_probabilities():
    torch.manual_seed(0)
    logits = LightCNN(3)(torch.randn(2, 1, 224, 224))
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits.sum(1), torch.ones(2))
    assert (logits < 0).any()


def test_network_has_the_layers_of_the_paper():
    convolutions = 32 * (81 + 1) + 64 * (32 * 49 + 1) + 96 * (64 * 25 + 1) + 96 * (96 * 9 + 1)
    model = LightCNN(7)
    assert sum(p.numel() for p in model.parameters()) == convolutions + 7 * (9600 + 1)
    assert model.dropout.p == 0.0325


def test_every_parameter_gets_a_gradient_on_three_channels():
    torch.manual_seed(0)
    model = LightCNN(label_dim=2, indim=3)
    torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 224, 224)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_saved_state_gives_the_same_logits(tmp_path):
    torch.manual_seed(0)
    model, other = LightCNN(3).eval(), LightCNN(3).eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    other.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    x = torch.randn(1, 1, 224, 224)
    assert torch.equal(model(x), other(x))


@pytest.mark.parametrize(
    ("shape", "padded", "features"),
    [
        ((1, 224, 224), False, 9600),
        ((1, 68, 68), False, 96),
        ((2, 128, 100), False, 96 * 4 * 3),
        ((4, 64, 192), True, 96 * 4 * 12),
        ((4, 64, 1232), True, 96 * 4 * 77),
        ((1, 16, 31), True, 96),
    ],
)
def test_the_linear_layer_is_as_large_as_what_is_left_of_the_picture(shape, padded, features):
    assert LightCNN.input_problem({"label_dim": 3, "indim": shape[0], "padded": padded}, shape) is None
    model = LightCNN(3, shape[0], padded, shape).eval()
    assert model.classifier.in_features == features
    assert model(torch.zeros(1, *shape)).shape == (1, 3)


def test_a_picture_of_which_nothing_would_be_left_is_refused_before_anything_is_built():
    args = {"label_dim": 3, "indim": 1, "padded": False}
    assert "indim 1, the items are (3, 224, 224)" in LightCNN.input_problem(args, (3, 224, 224))
    assert "(256, 128)" in LightCNN.input_problem(args, (256, 128))
    for shape in ((1, 67, 224), (1, 224, 67)):
        assert "at least 68x68, with padded of 16x16, the items are" in LightCNN.input_problem(args, shape)
    assert "at least 16x16, the items are" in LightCNN.input_problem(args | {"padded": True}, (1, 64, 15))
