"""The small networks for events."""

from __future__ import annotations

import pytest
import torch

from model.event_net import EventNet, FineEventNet
from model.mobilenet import MobileNetAS
from model.mobilenet_weights import PUBLISHED
from tests.tiny import ROOT
from utils.errors import UserError

WEIGHTS = ROOT.parent / "shared" / "weights" / PUBLISHED["mn04_as"].name


@pytest.mark.parametrize("body, most", [("resnet", 0.7e6), ("mn04_as", 0.55e6)])
def test_an_event_gives_logits_from_a_small_network(body, most):
    model = EventNet(7, body=body)
    assert model(torch.rand(2, 4, 64, 192)).shape == (2, 7)
    assert sum(parameter.numel() for parameter in model.parameters()) < most


@pytest.mark.parametrize("network", [EventNet, FineEventNet])
def test_steps_in_time_are_as_many_frames_apart_as_asked_for(network):
    model = network(2, body="mn04_as", frames_per_step=8).eval()
    assert model.body(torch.rand(1, 4, 64, 192)).shape[2] == 24
    assert model(torch.rand(1, 4, 64, 192)).shape == (1, 2)


def test_the_probability_of_adventitious_is_that_of_all_its_classes():
    torch.manual_seed(0)
    model = FineEventNet()
    x = torch.rand(4, 4, 64, 192)
    logits, fine = model(x)
    torch.testing.assert_close(logits.softmax(1)[:, 1], fine.softmax(1)[:, 1:].sum(1))
    assert fine.shape == (4, 7)
    assert model.eval()(x).shape == (4, 2)


def test_the_mark_of_the_event_matters():
    torch.manual_seed(0)
    model = EventNet(7).eval()
    x = torch.rand(1, 4, 64, 192)
    x[:, 3] = 0
    marked = x.clone()
    marked[:, 3, :, 80:120] = 1
    assert not torch.allclose(model(x), model(marked), atol=1e-4)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the weights of mn04_as are not here")
def test_the_body_has_the_weights_of_audioset():
    published = MobileNetAS(527, weights=str(WEIGHTS)).features.state_dict()
    own = EventNet(7, body="mn04_as", weights=str(WEIGHTS)).body.layers.state_dict()
    assert own.keys() == published.keys()
    for name, tensor in own.items():
        expected = published[name]
        if name == "0.0.weight":
            expected = expected.repeat(1, 4, 1, 1) / 4
        assert torch.equal(tensor, expected)


def test_what_does_not_fit_is_said_before_anything_is_built():
    args = {"indim": 4, "label_dim": 3, "fine_dim": 7, "dropout": 0.2, "body": "resnet", "weights": None}
    assert "not 3 and 7" in FineEventNet.input_problem(args, (4, 64, 192))
    for fine_dim in (1, 5, 9):
        problem = FineEventNet.input_problem(args | {"label_dim": 2, "fine_dim": fine_dim}, (4, 64, 192))
        assert problem == f"FineEventNet has 2 classes and 7 fine ones, not 2 and {fine_dim}"
    assert FineEventNet.input_problem(args | {"label_dim": 2}, (4, 64, 192)) is None
    assert "(1, 224, 224)" in EventNet.input_problem(args, (1, 224, 224))
    assert EventNet.input_problem(args, (4, 64, 192)) is None
    assert "the body resnet has none" in EventNet.input_problem(args | {"weights": "hub"}, (4, 64, 192))


@pytest.mark.parametrize("network", [EventNet, FineEventNet])
@pytest.mark.parametrize("dropout", [2.0, -1])
def test_a_dropout_that_is_no_share_is_refused(network, dropout):
    args = {"indim": 4, "label_dim": 2, "fine_dim": 7, "dropout": dropout, "body": "resnet", "weights": None}
    assert network.input_problem(args, (4, 64, 192)) == f"dropout is {dropout}, expected 0 to 1"
    with pytest.raises(UserError, match=r"arch\.args: dropout is"):
        network(2, dropout=dropout)
