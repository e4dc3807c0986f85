from __future__ import annotations

import copy

import pytest
import torch

from model.ensemble import Ensemble
from tests.tiny import Tiny, tiny_config
from trainer.trained import load_trained
from utils.checkpoint import save_checkpoint
from utils.errors import UserError

SHAPE = (1, 224, 224)
TINY = {"type": "Tiny", "args": {"label_dim": 2}}
GRU = {"type": "GRU", "args": {"label_dim": 2, "input_dim": 1, "hidden_dim": 3}}


def test_it_gives_the_logarithm_of_the_mean_of_its_members_probabilities():
    torch.manual_seed(0)
    ensemble = Ensemble(2, [TINY, TINY]).eval()
    ensemble.mean.copy_(torch.tensor([0.0, 3.0]))
    ensemble.std.copy_(torch.tensor([1.0, 0.5]))
    x = torch.randn(4, *SHAPE)
    with torch.inference_mode():
        one, two = ensemble.members
        expected = (one(x).softmax(1) + two((x - 3) / 0.5).softmax(1)) / 2
        found = ensemble(x)
    assert found.dtype == torch.float32
    assert torch.allclose(found.exp(), expected, atol=1e-6)


def test_a_class_that_no_member_believes_in_stays_a_number():
    ensemble = Ensemble(2, [TINY, TINY]).eval()
    for member in ensemble.members:
        torch.nn.init.zeros_(member.linear.weight)
        member.linear.bias.data = torch.tensor([0.0, 500.0])
    found = ensemble(torch.zeros(1, *SHAPE))
    assert found.isfinite().all()
    assert torch.allclose(found.softmax(1), torch.tensor([[0.0, 1.0]]))


def test_each_member_is_computed_in_its_own_precision():
    ensemble = Ensemble(2, [TINY, TINY | {"precision": "bf16"}]).eval()
    seen = []
    for member in ensemble.members:
        member.linear.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    assert ensemble(torch.randn(1, *SHAPE)).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_lengths_reach_the_members_that_take_them():
    ensemble = Ensemble(2, [GRU, GRU]).eval()
    x, lengths = torch.randn(2, 50), torch.tensor([50, 20])
    padded = torch.cat([x[:, :20], torch.randn(2, 30)], dim=1)
    with torch.inference_mode():
        assert torch.allclose(ensemble(x, lengths)[1], ensemble(padded, lengths)[1])
        assert not torch.allclose(ensemble(x, lengths)[0], ensemble(padded, lengths)[0])


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory):
    """What a checkpoint of an ensemble holds."""
    config = tiny_config(tiny_data, tmp_path_factory.mktemp("saved"))
    config["arch"] = {"type": "Ensemble", "args": {"label_dim": 2, "members": [TINY, TINY]}}
    spec = {
        "method": "stft",
        "params": {},
        "input_dir": "processed_stft",
        "shape": list(SHAPE),
        "mean": 0.0,
        "std": 1.0,
    }
    spec |= {"rate": None, "duration": None, "weights": None, "channels": 1}
    state = Ensemble(2, [TINY, TINY]).state_dict()
    return {"config": config, "epoch": 1, "state_dict": state, "classes": ["Normal", "Adventitious"], "input": spec}


def load(checkpoint, path):
    save_checkpoint(path, checkpoint)
    return load_trained(path, torch.device("cpu"))


def test_its_checkpoint_needs_nothing_else(checkpoint, tmp_path):
    trained = load(checkpoint, tmp_path / "e.pth")
    assert all(isinstance(member, Tiny) for member in trained.model.members)
    # Weights that a member began with are not looked for.
    own = copy.deepcopy(checkpoint)
    own["config"]["arch"]["args"]["members"][0]["args"]["weights"] = "no/such.pth"
    load(own, tmp_path / "e.pth")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], "1 to 1000 members"),
        ([TINY] * 1001, "1 to 1000 members"),
        ([TINY], "unknown members.1"),
        ([TINY] * 3, "no members.2"),
        ([TINY, {"type": "Ensemble", "args": {"label_dim": 2, "members": [TINY]}}], "is an ensemble itself"),
        ([TINY, {"type": "Nothing", "args": {}}], "there is no architecture 'Nothing'"),
        ([TINY, {"type": [], "args": {}}], "members.type is []"),
        ([TINY, {"type": "Tiny"}], "members.args is missing"),
        ([TINY, {"type": "Tiny", "args": 1}], "members.args is 1"),
        ([TINY, TINY | {"precision": "fp8"}], "members.precision is 'fp8'"),
        ([TINY, TINY | {"more": 1}], "members.more is unknown"),
        ([TINY, {"type": "Tiny", "args": {"label_dim": 3}}], "is 3, the ensemble's is 2"),
        ([TINY, {"type": "Tiny", "args": {"label_dim": 2, "x": 1}}], "members.args.x is unknown"),
        ([TINY, {"type": "ASTModel", "args": {"label_dim": 2}}], "member 2: members.args"),
        ("x", "arch.args.members is 'x'"),
    ],
)
def test_a_checkpoint_with_members_that_are_none_is_refused(checkpoint, tmp_path, members, said):
    own = copy.deepcopy(checkpoint)
    own["config"]["arch"]["args"]["members"] = members
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        load(own, tmp_path / "e.pth")
    assert said in str(error.value)


def test_classes_that_are_merged_have_the_sum_of_their_probabilities():
    torch.manual_seed(0)
    fine = {"type": "Tiny", "args": {"label_dim": 4}}
    ensemble = Ensemble(2, [fine, fine], merged=[[0], [1, 2, 3]]).eval()
    x = torch.randn(3, *SHAPE)
    with torch.inference_mode():
        normal = torch.stack([member(x).softmax(1)[:, 0] for member in ensemble.members]).mean(0)
        found = ensemble(x).exp()
    assert torch.allclose(found, torch.stack([normal, 1 - normal], dim=1), atol=1e-6)


@pytest.mark.parametrize("merged", [[[0], [1]], [[0], [1, 1, 2]], [[], [0, 1, 2]], [[0, 1, 2]]])
def test_classes_that_do_not_make_those_of_the_members_are_refused(merged):
    args = {"label_dim": 2, "members": [{"type": "Tiny", "args": {"label_dim": 3}}], "merged": merged}
    assert Ensemble.input_problem(args, SHAPE)
    assert Ensemble.input_problem(args | {"merged": [[0], [1, 2]]}, SHAPE) is None
