#!/usr/bin/env python3
"""What the TensorBoard log costs a training run: seconds spent in the writer over seconds of the whole run.

    python benchmarks/tensorboard_cost.py -c configs/task2_1_lightcnn.json --epochs 2 --runs 3

Prints the share of each run and the smallest, median and largest; the promise is under 2 %.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Not `text`, which `config` calls: its time would count twice.
METHODS = ("scalars", "confusion", "examples", "graph", "config", "hparams", "flush", "close")


def timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The method, noting the seconds of each call."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - start)

    return wrapper


def share_of_one_run(config_file: str, epochs: int) -> float:
    """Train once and return the writer's share of the time of the epochs, the opening of the log included."""
    import torch

    from logger.tensorboard import TensorboardWriter
    from trainer.setup import make_trainer
    from utils.config import ConfigParser, read_config, set_key

    spent: list[float] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for name in METHODS:
            method = timed(getattr(TensorboardWriter, name), spent)
            stack.enter_context(mock.patch.object(TensorboardWriter, name, method))
        content = read_config(Path(config_file))
        set_key(content, "trainer.epochs", epochs)
        set_key(content, "trainer.save_dir", folder)
        config = ConfigParser(content)
        config.make_run_folders()
        torch.manual_seed(config.seed)
        start = time.perf_counter()
        trainer = make_trainer(config, torch.device("cpu"))
        trainer.finish(trainer.train())
        return sum(spent) / (time.perf_counter() - start)


def main() -> None:
    """Run and print."""
    from utils.versions import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="configs/demo.json")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    print(environment())
    shares = []
    for number in range(1, args.runs + 1):
        shares.append(share_of_one_run(args.config, args.epochs))
        print(f"run {number}: {shares[-1]:.2%} of the time is spent in the TensorBoard writer", flush=True)
    print(f"min {min(shares):.2%}, median {statistics.median(shares):.2%}, max {max(shares):.2%}")


if __name__ == "__main__":
    main()
