"""In what two configs, or what was said of two groups of runs, differ."""

from __future__ import annotations

import pytest

from tests.tiny import tiny_config
from trainer.difference import first_difference, input_difference, with_defaults
from trainer.group import record_difference


def config(**changes):
    return tiny_config("data", "saved", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"decide": "argmax", "recording_context": False},
        {"arch__args__dropout": 0, "arch__args__weights": None},
        {"optimizer__args__betas": [0.9, 0.999]},
        {"data_loader__args__seed": 0, "data_loader__args__num_workers": 0},
        {"data_loader__args__augment": {"splice": 0}},
        {"loss": {"type": "cross_entropy", "args": {"weight": "balanced", "label_smoothing": 0}}},
    ],
)
def test_a_default_that_is_spelled_out_is_no_difference(changes):
    assert first_difference(with_defaults(config()), with_defaults(config(**changes))) is None


@pytest.mark.parametrize(
    ("then", "now", "where"),
    [
        ({}, {"decide": "counted"}, "decide"),
        ({}, {"arch__args__norm": True}, "arch.args.norm"),
        ({"arch__args__norm": False}, {"arch__args__norm": 0}, "arch.args.norm"),
        ({}, {"data_loader__args__augment": {"gain_db": 1}}, "data_loader.args.augment.gain_db"),
        # The loader's own seed is the config's where it has none.
        ({"seed": 1}, {"seed": 1, "data_loader__args__seed": 0}, "data_loader.args.seed"),
        # null is not what an argument has by default.
        (
            {"arch": {"type": "ResNet18", "args": {"label_dim": 2}}},
            {"arch": {"type": "ResNet18", "args": {"label_dim": 2, "weights": None}}},
            "arch.args.weights",
        ),
    ],
)
def test_what_is_no_default_is_a_difference(then, now, where):
    assert first_difference(with_defaults(config(**then)), with_defaults(config(**now))) == where


def test_what_names_nothing_that_there_is_is_compared_as_it_is():
    strange = config(arch={"type": "Gone", "args": {"x": 1}}, data_loader__args__augment=[1])
    assert first_difference(with_defaults(strange), with_defaults(strange)) is None
    assert first_difference(with_defaults(strange), with_defaults(config())) == "arch.args.dropout"


INPUT = {"method": "mel", "params": {"f_min": 50.0}, "input_dir": "processed_mel", "shape": [1, 64, 98]}


def test_inputs_differ_by_their_features_and_not_by_what_an_earlier_version_did_not_say():
    assert input_difference(INPUT, INPUT | {"params": {"n_mels": 64, "f_min": 50.0}, "channels": 1}) is None
    assert input_difference(INPUT, INPUT | {"params": {"f_min": 100.0}}) == "input.params.f_min"
    assert input_difference(INPUT | {"params": {"x": 1}}, INPUT) == "input"


def test_a_group_goes_on_where_its_record_is_the_same_or_of_an_earlier_version():
    now = {"folds": 2, "members": {"tiny": config()}, "input": INPUT, "soft_targets": {"fold0": "a", "final": "b"}}
    assert record_difference(now, now) is None
    assert record_difference({key: now[key] for key in ("folds", "members")}, now) is None
    assert record_difference(now | {"members": {"tiny": config(decide="argmax")}}, now) is None
    other = now | {"input": INPUT | {"shape": [1, 64, 99]}, "soft_targets": {"fold0": "a", "final": "c"}}
    assert record_difference(other, now) == "input.shape"
    assert record_difference(other | {"input": INPUT}, now) == "soft_targets.final"
    # What the config says comes before what follows from it.
    assert record_difference(other | {"members": {"tiny": config(name="b")}}, now) == "members.tiny.name"
    assert record_difference(other | {"members": {"tiny": config(decide="?")}}, now) == "members.tiny.decide"
    for damaged in ([], {}, now | {"members": {"tiny": {}}}, now | {"members": 1}):
        assert record_difference(damaged, now) is not None
