"""Whether a run can go on with what a checkpoint holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from base.saved_state import misfit, optimizer_misfit
from trainer.optimization import optimizers

OWN = {
    "epoch": 3,
    "best": float("inf"),
    "name": "x",
    "list": [1.0, 2.0],
    "none": None,
    "empty": {},
    "w": torch.zeros(2),
}


def test_numbers_text_and_what_the_run_knows_nothing_of_may_differ():
    saved = {"epoch": 7, "best": 1, "name": "y", "list": (3, 4), "none": "z", "empty": {"a": 1}, "w": torch.ones(2)}
    assert misfit(saved | {"more": 1}, OWN) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"epoch": "3"}, "epoch is '3'"),
        ({"epoch": True}, "epoch is True"),
        ({"best": None}, "best is None"),
        ({"list": [1.0]}, "list is a list of 1"),
        ({"list": [1.0, "a"]}, r"list\[1\] is 'a'"),
        ({"empty": []}, "empty is a list of 0"),
        ({"w": torch.zeros(3)}, r"w is a tensor \(3,\) of float32"),
        ({"w": torch.zeros(2, dtype=torch.int64)}, r"w is a tensor \(2,\) of int64"),
        ({"w": 1.0}, "w is 1.0"),
    ],
)
def test_a_value_of_another_kind_is_named(changes, what):
    with pytest.raises(AssertionError, match=what):
        assert misfit(OWN | changes, OWN) is None, misfit(OWN | changes, OWN)


def test_a_missing_key_is_named():
    assert misfit({"a": {}}, {"a": {"b": 1}}) == "a has no b"


ARGS = {"Adam": {"amsgrad": True}, "AdamW": {"fused": True}, "SGD": {"momentum": 0.9}, "RMSprop": {"centered": True}}


def make(name):
    model = nn.Sequential(nn.Linear(4, 3), nn.Conv1d(1, 2, 3))
    return optimizers[name](model.parameters(), lr=0.1, **ARGS.get(name, {}))


def stepped(name):
    optimizer = make(name)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", sorted(optimizers))
def test_an_optimizer_takes_its_own_state_and_no_damaged_one(name):
    state, fresh = stepped(name).state_dict(), make(name)
    before = len(fresh.state)
    assert optimizer_misfit(state, fresh) is None
    assert len(fresh.state) == before, "looking changes nothing"
    key = next(key for key, value in state["state"][0].items() if isinstance(value, torch.Tensor) and value.ndim)
    for spoilt in (torch.zeros(7, 7), 1.0, None, state["state"][0][key].double()):
        damaged = {**state, "state": {**state["state"], 0: {**state["state"][0], key: spoilt}}}
        assert f"optimizer.state.0.{key} is" in optimizer_misfit(damaged, fresh)
    lacking = {**state, "state": {**state["state"], 0: {}}}
    assert optimizer_misfit(lacking, fresh).startswith(("optimizer.state.0 holds nothing", "optimizer.state.0 has no"))
    assert "entry 99" in optimizer_misfit({**state, "state": {**state["state"], 99: {}}}, fresh)
    assert optimizer_misfit({**state, "param_groups": []}, fresh) == "optimizer.param_groups is a list of 0"


def test_a_setting_that_is_yes_or_no_cannot_be_none():
    state = stepped("AdamW").state_dict()
    state["param_groups"][0]["amsgrad"] = None
    assert optimizer_misfit(state, make("AdamW")) == "optimizer.param_groups[0].amsgrad is None"


def test_a_parameter_that_was_never_trained_needs_no_state():
    state = stepped("AdamW").state_dict()
    del state["state"][0]
    assert optimizer_misfit(state, make("AdamW")) is None
