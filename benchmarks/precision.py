#!/usr/bin/env python3
"""What bf16 autocast, channels_last and torch.compile give, and whether the loss goes the same way.

    python benchmarks/precision.py
    python benchmarks/precision.py --device cuda --steps 50

Speed: the bare loop (bare_loop.py) over the same batches in memory, one variant after the other, in turn; the first
turn of each, with the compilation, is not counted. Loss: so many steps from the same weights, in fp32 and in what
"auto" takes, on the same batches in the same orders; how much the losses of different orders differ is the noise.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import bare_loop
import numpy as np
import torch
from harness import Measured, against, in_turn, parser, record
from training_case import CASES, Batches, Case, Parts, build_parts, case_config, data_folder, in_memory

from utils.config import ConfigParser
from utils.device import autocast
from utils.memory import keep_freed_memory


class Variant(NamedTuple):
    """A way to compute the step."""

    precision: str
    channels_last: bool = False
    compiled: bool = False


VARIANTS = {
    "fp32": Variant("fp32"),
    "fp32, channels_last": Variant("fp32", True),
    "bf16": Variant("bf16"),
    "bf16, channels_last": Variant("bf16", True),
    "bf16, channels_last, compiled": Variant("bf16", True, True),
}
# Those whose losses are compared: the plain one, and what "auto" takes.
CURVES = ("fp32", "bf16, channels_last")


def parts_of(config: ConfigParser, device: torch.device, variant: Variant) -> Parts:
    """The same weights each time, for the variant."""
    parts = build_parts(config, device, variant.channels_last)
    return parts._replace(model=torch.compile(parts.model)) if variant.compiled else parts


def in_format(batches: Batches, variant: Variant) -> Batches:
    """The batches as the variant wants them in memory."""
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    inputs = [x.contiguous(memory_format=layout) if x.ndim == 4 else x for x in batches.inputs]
    return batches._replace(inputs=inputs)


def losses(parts: Parts, batches: Batches, order: list[int], precision: str, device: torch.device) -> list[float]:
    """The loss of each step."""
    found = []
    torch.manual_seed(0)  # dropout
    for number in order:
        with autocast(precision, device):
            output = parts.model(batches.inputs[number])
        loss = parts.criterion(output, batches.targets[number])
        loss.backward()
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        found.append(loss.item())
    return found


def tail(values: list[float]) -> float:
    """Mean of the last quarter."""
    last = values[-max(1, len(values) // 4) :]
    return sum(last) / len(last)


def speeds(case: Case, config: ConfigParser, batches: Batches, args: argparse.Namespace) -> list[Measured]:
    """Samples a second of all variants."""
    device = torch.device(args.device)
    runs, firsts = {}, {}
    for name, variant in VARIANTS.items():
        parts, its = parts_of(config, device, variant), in_format(batches, variant)
        start = time.perf_counter()
        bare_loop.bare_epoch(parts, its, variant.precision, device)
        firsts[name] = time.perf_counter() - start
        runs[name] = lambda parts=parts, its=its, precision=variant.precision: (
            its.items / bare_loop.bare_epoch(parts, its, precision, device)
        )
    values = in_turn(runs, args.runs)
    plain = Measured(f"{case.name}: fp32", "samples/s", values.pop("fp32"))
    lines = [plain]
    for name, its in values.items():
        note = f"first turn {firsts[name]:.0f} s" if VARIANTS[name].compiled else ""
        lines.append(against(f"{case.name}: {name}", "samples/s", its, plain, note))
    return lines


def curves(case: Case, config: ConfigParser, batches: Batches, args: argparse.Namespace) -> list[Measured]:
    """The loss at the end of short trainings, one an order of the batches, of each variant."""
    device = torch.device(args.device)
    lines = []
    for name in CURVES:
        variant, tails = VARIANTS[name], []
        its = in_format(batches, variant)
        for seed in range(args.orders):
            order = np.random.default_rng(seed).integers(len(its.targets), size=args.curve).tolist()
            tails.append(tail(losses(parts_of(config, device, variant), its, order, variant.precision, device)))
            print(f"  loss, {name}, order {seed}: {tails[-1]:.4f}", file=sys.stderr)
        lines.append(Measured(f"{case.name}: {name}", "loss", tails, note=f"the last quarter of {args.curve} steps"))
    return lines


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__, runs=3)
    arguments.add_argument("--steps", type=int, default=3, metavar="N", help="of one turn (default: %(default)s)")
    arguments.add_argument(
        "--curve", type=int, default=24, metavar="N", help="steps for the loss (default: %(default)s)"
    )
    arguments.add_argument(
        "--orders", type=int, default=1, metavar="N", help="of the batches; 0 leaves the losses out"
    )
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments.add_argument("--models", default=",".join(case.name for case in CASES), help="(default: %(default)s)")
    args = arguments.parse_args()
    keep_freed_memory()
    lines = []
    for case in (case for case in CASES if case.name in args.models.split(",")):
        print(case.name, file=sys.stderr)
        in_curve = max(args.steps, min(args.curve, 12))
        with data_folder(case, args.data_dir, in_curve) as folder:
            config = case_config(case, folder)
            batches = in_memory(config, torch.device(args.device), in_curve)
            few = Batches(batches.inputs[: args.steps], batches.targets[: args.steps])
            lines += speeds(case, config, few, args)
            lines += curves(case, config, batches, args)
    record("precision", lines, args, device=args.device, steps=args.steps, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
