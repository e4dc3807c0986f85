"""Checking a section of a config by itself: that it names what there is, with arguments that this takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from data_loader import data_loaders
from data_loader.audio import MAX_RATE, MAX_SECONDS, MIN_RATE
from data_loader.batching import refuse_rates
from data_loader.splits import is_test_split
from utils.arguments import check_arguments
from utils.config import ConfigParser
from utils.errors import UserError
from utils.registry import Registry


def check_section(
    config: ConfigParser,
    name: str,
    registry: Registry,
    filled_in: tuple[str, ...] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """All arguments of what a section names; their types are right.

    Args:
        name: of the section: "arch", "loss".
        filled_in: arguments that the program gives itself.
        defaults: over those of the signature.

    Raises:
        UserError: names the key that is not.
    """
    section = config[name]
    section = {"type": section} if isinstance(section, str) else section
    item = registry.lookup(section["type"], f"{name}.type")
    return check_arguments(item, {**defaults, **section.get("args", {})}, f"{name}.args", filled_in=filled_in)


def check_loader(config: ConfigParser) -> dict[str, Any]:
    """All arguments of the data loader; their types and ranges are right, and it keeps off the test sets.

    Raises:
        UserError: names the one that is not.
    """
    args = check_section(config, "data_loader", data_loaders, filled_in=("rank", "world_size"))
    _check_ranges(args)
    # What is loaded is trained on or validated, and either chooses the model.
    loaded = args.get("split", "train").split("+")
    validation = args.get("validation_split")
    if isinstance(validation, dict) and validation.get("column") == "split":
        loaded.append(str(validation.get("value")))
    if tests := [name for name in loaded if is_test_split(name)]:
        what = f"names {tests[0]}, a test set, which is never trained, validated or chosen on"
        raise UserError("data_loader.args.split", what, f"train without it, then: python test.py --split {tests[0]}")
    return args


def _check_ranges(loader_args: dict[str, Any]) -> None:
    # Each worker is a process: some thousands of them would bring the machine down.
    workers = max(64, 4 * (os.cpu_count() or 1))
    ranges = {
        "batch_size": (1, 2**31),
        "num_workers": (0, workers),
        "rate": (MIN_RATE, MAX_RATE),
        "channels": (1, 16),
        "duration": (0, MAX_SECONDS),
        "seed": (0, 2**63),
    }
    for name, (least, most) in ranges.items():
        value = loader_args.get(name)
        if value is not None and not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most:g}"
            raise UserError(f"data_loader.args.{name}", f"is {value}", f"expected {bound}")
    duration, rate = loader_args.get("duration"), loader_args.get("rate")
    if rate is None:
        return
    # The rates of the files are not known yet. But those that are read can all be brought to 8000 Hz, and SPRSound's
    # is that: no rate is refused that needs no resampling.
    refuse_rates(8000, rate)
    if duration is not None and round(duration * rate) < 1:
        what = f"is {duration}, shorter than one sample at {rate} Hz"
        raise UserError("data_loader.args.duration", what, f"expected at least {1 / rate:g} seconds, or null")
