"""In what two configs, or what was said of two groups of runs, differ."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.frontend import InputSpec
from model import architectures, losses
from trainer.optimization import lr_schedulers, optimizers
from utils.arguments import matches
from utils.errors import UserError

_SECTIONS = {
    "arch": architectures,
    "data_loader": data_loaders,
    "loss": losses,
    "optimizer": optimizers,
    "lr_scheduler": lr_schedulers,
}
_DEFAULTS = {"seed": 0, "decide": "argmax", "recording_context": False}


def first_difference(then: Any, now: Any, where: str = "") -> str | None:
    """The dotted key of the first difference of two plain values; None where there is none."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted(then.keys() | now.keys())
        inner = (first_difference(then.get(key), now.get(key), f"{where}.{key}" if where else key) for key in keys)
        return next((difference for difference in inner if difference), None)
    return None if then == now and type(then) is type(now) else where or "content"


def input_of(spec: InputSpec) -> dict[str, Any]:
    """What an input is wherever its store lies, before it is normalised."""
    return replace(spec, mean=0.0, std=1.0, input_dir=None).to_dict()


def input_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The dotted key of the first difference of two inputs; None where there is none.

    They are as `InputSpec.to_dict` gives them; what an earlier version did not say is filled in. How they are
    normalised plays no part.
    """
    try:
        specs = [InputSpec.from_dict(dict(own)) for own in (then, now)]
    except UserError:
        return "input"
    return first_difference(*map(input_of, specs), where="input")


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with what it leaves to defaults spelled out, where a signature tells them.

    Two that ask for the same then hold the same, also where one is of a version that did not know an argument.

    Args:
        config: that fits the schema.
    """
    whole = _spelled_out(config, _DEFAULTS)
    for name, registry in _SECTIONS.items():
        section = whole.get(name)
        section = {"type": section} if isinstance(section, str) else section
        if not section or section["type"] not in registry:
            continue
        # Where the loader has no seed of its own, it has the config's.
        seed = {"seed": whole["seed"]} if name == "data_loader" else {}
        args = _spelled_out(section.get("args", {}), _defaults_of(registry[section["type"]]) | seed)
        if "augment" in args and matches(args["augment"], dict | None):
            args["augment"] = _spelled_out(args["augment"] or {}, asdict(Augmentation()))
        whole[name] = {**section, "args": args}
    return whole


def _defaults_of(item: Any) -> dict[str, Any]:
    """Of a class or function, as JSON would hold them."""
    found = {name: p.default for name, p in inspect.signature(item).parameters.items() if p.default is not p.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _spelled_out(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The given values over the defaults; of one that equals its default, as 0 equals 0.0, the default."""
    return {**given, **{k: v for k, v in defaults.items() if k not in given or _equal(given[k], v)}}


def _equal(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)
