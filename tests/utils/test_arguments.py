"""Arguments from a config against the signature of what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
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
        (0.1, float | Random, True),
        (".001", float | Random, False),
        ("file", Random | None, True),
        ("12", Sequence[int], False),
        ([1, 2], Sequence[int], True),
    ],
)
def test_json_values_are_matched_with_annotations(value, hint, fits):
    assert matches(value, hint) is fits


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (float | Random, "a number"),
        (tuple[float, float], "a list of 2 numbers"),
        (tuple[int, ...], "a list of whole numbers"),
        (list[float] | Literal["balanced"] | None, "a list of numbers or 'balanced' or null"),
        (list[list[int]] | None, "a list of lists of whole numbers or null"),
        (list[float | None], "a list of numbers or null"),
        (list[Literal["a", "b"]], "a list of 'a' or 'b'"),
        (float | dict[str, int], "a number or an object of whole numbers"),
        (dict[str, Any], "an object"),
    ],
)
def test_what_was_expected_is_said_in_words(hint, words):
    assert describe(hint) == words


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
    with pytest.raises(UserError, match="two: registers the metric 'a', which there is already"):
        registry.register("a")(type("Second", (), {"__module__": "two"}))


def test_a_file_cannot_take_the_name_of_another_one_s(tmp_path, monkeypatch):
    """As a feature does that was copied from another one: what is registered by `add` counts too."""
    package = tmp_path / "copied_features"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from utils.registry import Registry\nmethods = Registry('method', __name__)\n"
    )
    for name in ("mel", "my_mel"):
        (package / f"{name}.py").write_text("from copied_features import methods\nmethods.add('mel', object())\n")
    monkeypatch.syspath_prepend(tmp_path)
    from copied_features import methods

    with pytest.raises(UserError, match=r"copied_features.my_mel: registers the method 'mel', which there is already"):
        methods.lookup("mel", "--method")
