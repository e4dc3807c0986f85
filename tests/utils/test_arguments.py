"""Arguments from a config against the signature of what they are for."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from utils.arguments import check_arguments, describe, matches
from utils.errors import UserError
from utils.registry import Registry


def build(label_dim: int, size: Literal["tiny", "base"] = "base", weight: list[float] | None = None, **rest: Any): ...


def strict(label_dim: int, pretrained: bool = True, *, rate: float = 0.1): ...


def test_given_arguments_stand_over_the_defaults():
    assert check_arguments(strict, {"label_dim": 3, "rate": 1}, "arch.args") == {
        "label_dim": 3,
        "pretrained": True,
        "rate": 1,
    }


@pytest.mark.parametrize(
    "given, key, what",
    [
        ({"label_dim": 3, "pretraned": True}, "arch.args.pretraned", "did you mean pretrained"),
        ({"label_dim": "3"}, "arch.args.label_dim", "expected a whole number"),
        ({"label_dim": True}, "arch.args.label_dim", "expected a whole number"),
        ({"label_dim": 3, "pretrained": 1}, "arch.args.pretrained", "expected true or false"),
        ({"label_dim": 3, "rate": float("nan")}, "arch.args.rate", "expected a number"),
        ({}, "arch.args.label_dim", "is missing"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(given, key, what):
    with pytest.raises(UserError, match=what) as caught:
        check_arguments(strict, given, "arch.args")
    assert str(caught.value).startswith(key)


def test_choices_are_listed():
    with pytest.raises(UserError, match="'tiny' or 'base'"):
        check_arguments(build, {"label_dim": 1, "size": "huge"}, "arch.args")


def test_what_was_expected_is_said_in_words():
    assert describe(list[float] | Literal["balanced"] | None) == "a list of numbers or 'balanced' or null"
    assert describe(tuple[int, ...]) == "a list of whole numbers"
    assert describe(dict[str, int]) == "an object"


@pytest.mark.parametrize(
    "value, hint, fits",
    [
        ([1, 0.5], list[float] | None, True),
        ([1, "a"], list[float] | None, False),
        ("balanced", list[float] | Literal["balanced"] | None, True),
        ([0.9, 0.99], tuple[float, float], True),
        ([0.9], tuple[float, float], False),
        ({"folds": 5}, float | dict[str, int], True),
        ({"folds": "5"}, float | dict[str, int], False),
        (1, Literal[1, 2], True),
        (True, Literal[1, 2], False),
    ],
)
def test_json_values_are_matched_with_annotations(value, hint, fits):
    assert matches(value, hint) is fits


def test_a_whole_number_too_large_for_a_float_is_no_number():
    assert not matches(10**400, float)
    assert matches(10**300, float)


def test_a_registry_knows_only_what_was_registered():
    registry = Registry("loss")

    @registry.register("focal")
    class Focal: ...

    assert registry.lookup("focal", "loss.type") is Focal
    assert dict(registry) == {"focal": Focal}
    with pytest.raises(UserError, match=r"loss.type: there is no loss 'fokal' \(did you mean focal\?\)"):
        registry.lookup("fokal", "loss.type")
    with pytest.raises(UserError, match=r"there is no loss \['focal'\]"):
        registry.lookup(["focal"], "loss.type")
    with pytest.raises(UserError, match="choose from focal"):
        registry.lookup("__class__", "loss.type")


def test_two_things_of_one_name_are_a_mistake():
    registry = Registry("metric")
    registry.register("a")(type("First", (), {"__module__": "one"}))
    with pytest.raises(ValueError, match="two metrics"):
        registry.register("a")(type("Second", (), {"__module__": "two"}))
