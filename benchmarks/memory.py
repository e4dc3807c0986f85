#!/usr/bin/env python3
"""How long recurrent nets remember: accuracy on sums of the first two digits, over the length of the sequences.

    python benchmarks/memory.py                           SRN, LSTM and GRU on 5 to 35 digits: two minutes on a core
    python benchmarks/memory.py --lengths 5 10 --set trainer.epochs=20
    tensorboard --logdir saved/memory                     the chart: one run a net, the step is the length

Each net is trained by train.py on each length with its config (configs/memory_*.json); the checkpoint that is best on
the validation is scored on the test set. memory.json, memory.png, the log and the checkpoints go to a new folder.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from utils.cli import positive, run_script  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIGS = {net: ROOT / "configs" / f"memory_{net.lower()}.json" for net in ("SRN", "LSTM", "GRU")}
LENGTHS = (5, 10, 15, 20, 25, 30, 35)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--debug", action="store_true", help="show the traceback of an error")
    result.add_argument("--lengths", type=positive, nargs="+", default=LENGTHS, metavar="N", help="digits a sequence")
    result.add_argument(
        "--out", type=Path, default=ROOT / "saved" / "memory", metavar="DIR", help="each call makes a folder in it"
    )
    result.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as of train.py")
    return result


def accuracy(net: str, length: int, folder: Path, settings: list[str]) -> float:
    """Train a net on sequences of a length; its accuracy on the test set.

    Args:
        folder: for checkpoints.
        settings: ``key=value`` over the config's.
    """
    import torch

    from trainer.evaluation import evaluate
    from trainer.trained import load_trained
    from utils.config import read_config

    # One chart of all lengths says more than a log of each run.
    own = [f"trainer.save_dir={folder}", "trainer.tensorboard=false", "trainer.verbosity=0"]
    argv = ["-c", str(CONFIGS[net]), "-d", "cpu", "--run_id", f"length{length}"]
    train.main(train.parser().parse_args([*argv, "--set", *own, f"data_loader.args.length={length}", *settings]))
    run = folder / "models" / read_config(CONFIGS[net])["name"] / f"length{length}"
    trained = load_trained(run / "model_best.pth", torch.device("cpu"))
    return evaluate(trained, "test").metrics["accuracy"]


def figure_of(accuracies: Mapping[str, Mapping[int, float]], chance: float) -> Figure:
    """Accuracy over length, a line a net."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 4.0), dpi=100, layout="constrained", facecolor="white")
    axes = figure.subplots()
    for (net, by_length), marker in zip(accuracies.items(), "os^", strict=True):
        axes.plot(list(by_length), list(by_length.values()), marker=marker, label=net)
    axes.axhline(chance, color="#888888", linestyle=":", label="always the same answer")
    axes.set(xlabel="digits a sequence", ylabel="accuracy, test set", ylim=(-0.02, 1.02))
    axes.set_title("sum of the first two digits")
    axes.legend()
    return figure


def write_log(accuracies: Mapping[str, Mapping[int, float]], folder: Path) -> None:
    """TensorBoard's chart ``memory/accuracy`` over length: a run a net."""
    from torch.utils.tensorboard import SummaryWriter

    for net, by_length in accuracies.items():
        with SummaryWriter(str(folder / net)) as writer:
            for length, value in by_length.items():
                writer.add_scalar("memory/accuracy", value, length)


def main(args: argparse.Namespace) -> None:
    """Train all, then write."""
    import torch

    from logger.figures import save
    from utils.files import write_json
    from utils.versions import environment

    # On one thread: such small nets are no faster on more.
    torch.set_num_threads(1)
    folder = args.out / datetime.datetime.now().strftime("%m%d_%H%M%S")
    lengths = sorted(set(args.lengths))
    accuracies: dict[str, dict[int, float]] = {net: {} for net in CONFIGS}
    for length in lengths:
        for net in CONFIGS:
            accuracies[net][length] = accuracy(net, length, folder / "runs", args.set)
        line = ", ".join(f"{net} {by_length[length]:.2f}" for net, by_length in accuracies.items())
        print(f"{length} digits: {line}", flush=True)
    # Of 100 pairs, ten have the sum 9.
    save(figure_of(accuracies, chance=0.1), folder / "memory.png")
    write_log(accuracies, folder / "log")
    of_nets = {net: list(by_length.values()) for net, by_length in accuracies.items()}
    found = {"lengths": lengths, "accuracy": of_nets, "set": args.set, "environment": environment()}
    write_json(folder / "memory.json", found)
    print(f"{folder}: memory.png, memory.json; look at it: tensorboard --logdir {folder / 'log'}")


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
