"""Checking arguments from a config or the command line against the signature of what they are for."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from utils.errors import UserError, nearest

_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
_LISTS = (list, tuple, Sequence, Iterable)


def check_arguments(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    where: str,
    keyword_only: bool = False,
    filled_in: Collection[str] = (),
) -> dict[str, Any]:
    """All named arguments of a function or class: the given ones over the defaults.

    Args:
        function: what will be called.
        given: names and values.
        where: the config key that they stand under, for the message.
        keyword_only: only the keyword-only parameters are the user's; the others are not asked for.
        filled_in: parameters that the program gives itself.

    Raises:
        UserError: an unknown name, a missing one, or a value of another type than the annotation says.

    >>> def model(label_dim: int, pretrained: bool = True): ...
    >>> check_arguments(model, {"label_dim": 3}, "arch.args")
    {'label_dim': 3, 'pretrained': True}
    """
    kinds = (
        (inspect.Parameter.KEYWORD_ONLY,)
        if keyword_only
        else (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
    )
    signature = inspect.signature(function)
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    parameters = {name: p for name, p in signature.parameters.items() if p.kind in kinds and name not in filled_in}
    hints = _hints(function)
    for name, value in given.items():
        if name not in parameters:
            if open_ended:
                continue
            raise UserError(f"{where}.{name}", "is unknown", nearest(name, parameters))
        if name in hints and not matches(value, hints[name]):
            raise UserError(f"{where}.{name}", f"is {value!r}", f"expected {describe(hints[name])}")
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in given]
    if missing:
        raise UserError(f"{where}.{missing[0]}", "is missing")
    named = {name: given.get(name, parameter.default) for name, parameter in parameters.items()}
    return named | dict(given)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError):
        # Annotations that cannot be resolved, as in some of torch.optim, are not checked.
        return {}


def matches(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the type that an annotation says. A whole number is a float too; a bool is no number.

    >>> matches(1, float), matches(True, int), matches(None, int | None), matches([0.5], list[float])
    (True, False, True, True)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in _options(inner))
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if hint is type(None) or hint is None:
        return value is None
    if hint is float:
        # Whole numbers of any size are finite, but not all fit into a float.
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in _LISTS or hint in _LISTS:
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(matches, value, inner))
        return not inner or all(matches(item, inner[0]) for item in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict) and (not inner or all(matches(item, inner[1]) for item in value.values()))
    if hint in (str, bool):
        return isinstance(value, hint)
    # What JSON has no value for (a device, a callable) is not for a config to set, nor for this to judge.
    return True


def describe(hint: Any) -> str:
    """An annotation in words for a message.

    >>> describe(Literal["none", "weights"]), describe(float | None)
    ("'none' or 'weights'", 'a number or null')
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in _options(inner))
    if origin is Literal:
        return " or ".join(repr(option) for option in inner)
    if origin in _LISTS or hint in _LISTS:
        if not inner:
            return "a list"
        number = f"{len(inner)} " if origin is tuple and Ellipsis not in inner else ""
        return f"a list of {number}{_several(inner[0])}"
    if origin is dict and inner and inner[1] in _NAMES:
        return f"an object of {_several(inner[1])}"
    if hint in _NAMES:
        return _NAMES[hint]
    return "an object" if hint is dict or origin is dict else str(hint)


def _several(hint: Any) -> str:
    """As `describe`, of more than one."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_several(option) for option in _options(inner))
    words = describe(hint)
    if origin is Literal:
        return words
    first, space, rest = words.removeprefix("an ").removeprefix("a ").partition(" of ")
    return words if words in ("null", "true or false") else f"{first}s{space}{rest}"


def _options(inner: Sequence[Any]) -> list[Any]:
    """Of the options of an annotation, those that JSON has a value for: of a number or a tensor, the number.

    All of them where only null is left: of a path or null, a string may be meant to become the path.
    """
    known = [option for option in inner if not _is_for_program(option)]
    return known if set(known) - {type(None)} else list(inner)


def _is_for_program(hint: Any) -> bool:
    return inspect.isclass(hint) and hint not in (int, float, str, bool, list, tuple, dict, type(None))
