#!/usr/bin/env python3
"""How long one recording takes, from its file to its class, by checkpoint: an ensemble against one small network.

    python benchmarks/latency.py saved/models/best_task2_2/results/model_best.pth \\
        saved/models/small_task2_2/results/model_best.pth

One thread of the CPU decodes the file, computes the feature and runs the network, as test.py --wav does for a folder
that holds it alone; the start of the process and the loading of the checkpoint are not counted. The first checkpoint
is the baseline. Each turn predicts the same recordings, evenly spread over the training set, by every checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Measured, against, in_turn, parser, record
from inference import recordings, spread

from data_loader.folder import group_batches
from data_loader.frontend import Frontend
from trainer.deciding import decided, refuse_rule
from trainer.inference import model_output
from trainer.trained import Trained, load_trained
from utils.cli import run_script
from utils.device import autocast

CPU = torch.device("cpu")


def inputs_of(trained: Trained, file: Path) -> object:
    """The batch of one recording, its feature computed where the model was trained on a store."""
    (batch,) = group_batches([file], range(1), trained.spec, 1)
    return batch


def class_of(trained: Trained, frontend: Frontend, file: Path) -> str:
    """The whole way of one recording."""
    batch = inputs_of(trained, file)
    with torch.inference_mode(), autocast(trained.precision, CPU):
        output = model_output(trained.finest_model, frontend, batch, CPU).float()
    (found,) = decided(trained, torch.softmax(output, dim=1).numpy(), trained.rule)
    return trained.classes[found]


def milliseconds(call: Callable[[Path], object], files: list[Path]) -> list[float]:
    """Of each file."""
    found = []
    for file in files:
        start = time.perf_counter()
        call(file)
        found.append(1000 * (time.perf_counter() - start))
    return found


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    result = parser(__doc__, runs=5)
    result.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="the first is the baseline")
    result.add_argument("--files", type=int, default=40, metavar="N", help="recordings a turn (default: 40)")
    # That of `run_script`.
    result.set_defaults(debug=False)
    return result


def main(args: argparse.Namespace) -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    files = spread(recordings(args.data_dir), args.files)
    calls: dict[str, Callable[[Path], object]] = {}
    parameters: dict[str, int] = {}
    for path in args.checkpoints:
        trained = load_trained(path, CPU)
        refuse_rule(trained, trained.rule)
        # Two runs of one name would else be one line.
        name = f"{trained.config['name']} ({path})"
        parameters[name] = sum(parameter.numel() for parameter in trained.model.parameters())
        calls[name] = partial(class_of, trained, Frontend(trained.spec).eval())
        calls.setdefault(f"decoding and feature {trained.spec.method}", partial(inputs_of, trained))
    for call in calls.values():
        # The first ones are slower.
        milliseconds(call, files[:2])
    late: dict[str, list[float]] = {name: [] for name in calls}

    def turn(name: str) -> float:
        each = milliseconds(calls[name], files)
        late[name].append(float(np.percentile(each, 95)))
        return float(np.median(each))

    medians = in_turn({name: partial(turn, name) for name in calls}, args.runs)
    lines: list[Measured] = []
    for kind, values in (("median", medians), ("95th percentile", late)):
        first = next(iter(calls))
        baseline = Measured(f"{first}, {kind}", "ms", values[first], note=f"{parameters[first]:,} parameters")
        lines.append(baseline)
        for name in [*calls][1:]:
            note = f"{parameters[name]:,} parameters" if name in parameters else "part of the others"
            lines.append(against(f"{name}, {kind}", "ms", values[name], baseline, note))
    record("latency", lines, args, files=len(files), threads=1)


if __name__ == "__main__":
    sys.exit(run_script(main, arguments()))
