#!/usr/bin/env python3
"""What each ready config's network costs: shape of one item, parameters, multiplications for one item.

    python benchmarks/model_costs.py

Counted, not timed: MACs are half of the floating point operations that PyTorch's own counter sees in matrix products,
convolutions and attention while one item goes through the network in evaluation mode. What lies between (activations,
normalisation, pooling) is not counted, nor is the feature that the network gets. Configs of one network on items of
one shape share a line. Classical estimators have no weights before they are fitted, and are left out.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_loader import data_loaders
from data_loader.features import methods
from data_loader.frontend import shape_of_channels
from model import architectures
from trainer.building import make_model
from utils.config import ConfigParser, read_config

# Their network takes seconds to build, and 360 MB.
WAV2VEC = {"ast_wav2vec": (768, 128), "wav2vec": (1, 224, 224)}
# Of the arguments of a network, those that change what it costs in no way.
NO_COST = ("weights", "pretrained", "imagenet_pretrain", "audioset_pretrain", "freeze", "unfreeze_at", "layer_decay")


@dataclass(frozen=True)
class Cost:
    """One line.

    Attributes:
        configs: the names of those that have this network.
        shape: of one item of its input.
    """

    arch: str
    configs: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    macs: int


def item_shape(config: ConfigParser) -> tuple[int, ...]:
    """The shape of one item of a config's model input, with the features' default parameters; needs no data.

    Where waveforms or sequences may have any length, that of the config's ``length``, or one second.
    """
    args = config["data_loader"]["args"]
    loader = data_loaders[config["data_loader"]["type"]]
    rate, channels = args.get("rate", 8000), args.get("channels", loader.channels)
    if (folder := args.get("input_dir")) is not None:
        method, params = folder.removeprefix("processed_"), {}
        if method in WAV2VEC:
            return WAV2VEC[method]
    elif (frontend := args.get("frontend")) is None:
        samples = args.get("length", round(args.get("duration", 1) * rate))
        return (samples,) if channels == 1 else (channels, samples)
    else:
        params = {"method": frontend} if isinstance(frontend, str) else dict(frontend)
        method = params.pop("method")
    feature = methods[method]
    params = feature.settled(feature.checked(params, method), "cpu")
    shape = tuple(feature(torch.zeros(rate), rate, **params).shape)
    return shape if folder is not None else shape_of_channels(shape, channels, "channels")


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications for one item of a shape.

    >>> count_macs(nn.Linear(3, 5), (3,))
    15
    """
    model.eval()
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32")
        # oneDNN's LSTM and the CPU's attention are one operation each, which the counter does not know.
        with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
            # Not zeros: a network may look at how much of an item there is.
            model(torch.ones(1, *shape))
    return counter.get_total_flops() // 2


def costs(paths: list[Path]) -> Iterator[Cost]:
    """The lines for some configs, in their order."""
    found: dict[tuple[Any, ...], list[str]] = {}
    of_key: dict[tuple[Any, ...], ConfigParser] = {}
    for path in paths:
        content = read_config(path)
        # An ensemble names other configs and has no network of its own.
        if "arch" not in content or architectures[content["arch"]["type"]].fits_at_once:
            continue
        config = ConfigParser(content)
        arch = config["arch"]
        counted = {name: value for name, value in arch.get("args", {}).items() if name not in NO_COST}
        # The classes change the last layer alone.
        counted.pop("label_dim", None)
        key = (arch["type"], repr(sorted(counted.items())), item_shape(config))
        found.setdefault(key, []).append(path.stem)
        of_key.setdefault(key, config)
    for key, config in of_key.items():
        model = make_model(config, restore=True, input_shape=key[2])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield Cost(key[0], tuple(found[key]), key[2], parameters, count_macs(model, key[2]))


def table(lines: list[Cost]) -> str:
    """A Markdown table."""
    rows = ["| `arch.type` | one item | parameters | MACs | configs |", "|---|---|---|---|---|"]
    for line in lines:
        shape, names = " x ".join(map(str, line.shape)), ", ".join(line.configs)
        rows.append(f"| `{line.arch}` | {shape} | {_short(line.parameters)} | {_short(line.macs)} | {names} |")
    return "\n".join(rows)


def _short(number: int) -> str:
    """Three digits and a unit.

    >>> _short(999), _short(54_321), _short(1_234_567_890)
    ('999', '54.3 k', '1.23 G')
    """
    power = min(len(str(number)) - 1, 9) // 3 if number else 0
    digits = max(0, 2 - math.floor(math.log10(number / 1000**power))) if power else 0
    return f"{number / 1000**power:.{digits}f}" + (f" {' kMG'[power]}" if power else "")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = sorted((harness.ROOT / "configs").glob("*.json"))
    result.add_argument("configs", nargs="*", type=Path, default=default, help="JSON files (default: all of configs/)")
    return result


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    print(table(list(costs(args.configs))))


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
