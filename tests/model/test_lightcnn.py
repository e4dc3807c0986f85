from __future__ import annotations

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


def test_another_picture_size_is_refused_before_anything_is_built():
    args = {"label_dim": 3, "indim": 1}
    assert LightCNN.input_problem(args, (1, 224, 224)) is None
    assert "(1, 224, 224)" in LightCNN.input_problem(args, (3, 224, 224))
    assert "(256, 128)" in LightCNN.input_problem(args, (256, 128))
