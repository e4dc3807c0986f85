#!/usr/bin/env python3
"""Training steps of the full Trainer against a bare loop, against other Trainers, and against plain paper code.

    python benchmarks/training.py
    python benchmarks/training.py --device cuda --steps 50

Baseline C is a bare loop over batches in memory: forward, loss, backward, step. Ours is whole epochs of the Trainer,
made from a shipped config as train.py makes it: it loads from the store, augments, clips gradients, draws the progress
bar, logs to TensorBoard and ends with the metrics over all items. Lightning's and Hugging Face's Trainer get C's
batches in memory and ours gradient clipping. All have the same model, precision, optimizer and process settings, and
take turns in one process. Baseline D (paper_loop.py) is a process of its own without these settings. No side
validates.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch
from bare_loop import bare_epoch
from harness import ROOT, Measured, against, in_turn, parser, record
from paper_loop import save_items
from training_case import CASES, Batches, Case, build_parts, build_trainer, case_config, data_folder, in_memory, wait

from trainer.trainer import Trainer
from utils.config import ConfigParser
from utils.memory import keep_freed_memory

PAPER_STEPS = 2  # of baseline D a turn, beside one that is not counted
OTHERS = {"Lightning": "lightning", "Hugging Face": "hugging_face"}


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__, runs=5)
    arguments.add_argument("--steps", type=int, default=6, metavar="N", help="of one turn (default: %(default)s)")
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    names = [case.name for case in CASES]
    arguments.add_argument("--models", default=",".join(names), help="default: %(default)s")
    args = arguments.parse_args()
    keep_freed_memory()
    cases = [case for case in CASES if case.name in args.models.split(",")]
    if not cases:
        sys.exit(f"error: --models: choose from {', '.join(names)}")
    others = installed()
    lines = []
    with data_folder(args.data_dir, args.steps * max(case.batch_size for case in cases)) as folder:
        for case in cases:
            lines += compare(case, folder, args, others)
    record("training", lines, args, device=args.device, steps=args.steps, threads=torch.get_num_threads())


def installed() -> dict[str, ModuleType]:
    """The other Trainers that are there; what is not there is said."""
    found = {}
    for name, stem in OTHERS.items():
        try:
            found[name] = importlib.import_module(f"{stem}_loop")
        except ImportError as error:
            print(f"{name}'s Trainer is left out: {error} (pip install -r requirements-bench.txt)", file=sys.stderr)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return found


def compare(case: Case, folder: Path, args: argparse.Namespace, others: dict[str, ModuleType]) -> list[Measured]:
    """One model: samples a second of all, in turn."""
    device = torch.device(args.device)
    # Some cases have smaller batches: more of them make an epoch.
    config = case_config(case, folder, args.steps)
    trainer = build_trainer(config, device)
    batches = in_memory(trainer, args.steps)
    items = sum(len(target) for target in batches.targets)
    contestants: dict[str, Callable[[], float]] = {}

    bare = build_parts(config, device)
    contestants["C"] = lambda: items / bare_epoch(bare, batches, trainer.precision, device)
    contestants["ours"] = lambda: len(trainer.data_loader.train_indices) / trainer_epoch(trainer)
    for name, module in others.items():
        epoch = getattr(module, f"{OTHERS[name]}_epoch")
        parts = build_parts(config, device)
        others_args = (parts, batches, trainer.precision, device, trainer.grad_clip, folder.parent)
        contestants[name] = lambda epoch=epoch, others_args=others_args: items / epoch(*others_args)
    with contextlib.ExitStack() as stack:
        if case.method == "wavelet":
            paper = stack.enter_context(paper_process(config, folder, device))
            contestants["D"] = lambda: PAPER_STEPS * case.batch_size / paper()
        warm_up = Batches(batches.inputs[:2], batches.targets[:2])
        bare_epoch(bare, warm_up, trainer.precision, device)
        values = in_turn({name: quiet(run) for name, run in contestants.items()}, args.runs)
    trainer.writer.close()
    return table_lines(case, values, trainer, batches)


def table_lines(case: Case, values: dict[str, list[float]], trainer: Trainer, batches: Batches) -> list[Measured]:
    """The lines of one model: against C, and against the others and D."""
    shape = tuple(batches.inputs[0].shape)
    unit = "samples/s"
    base = Measured(f"{case.name}: C, bare loop", unit, values.pop("C"), note=f"{trainer.precision}, batches {shape}")
    ours = values.pop("ours")
    lines = [base, against(f"{case.name}: Trainer", unit, ours, base)]
    for name, its in values.items():
        what = "D, paper code" if name == "D" else f"{name}'s Trainer"
        other = Measured(f"{case.name}: {what}", unit, its, note="fp32" if name == "D" else "")
        lines += [other, against(f"{case.name}: Trainer", unit, ours, other)]
    return lines


def trainer_epoch(trainer: Trainer) -> float:
    """Seconds of the next epoch of the Trainer: its steps and its metrics."""
    import time

    trainer.start_epoch += 1
    wait(trainer.device)
    start = time.perf_counter()
    trainer._train_epoch(trainer.start_epoch)
    wait(trainer.device)
    return time.perf_counter() - start


@contextlib.contextmanager
def paper_process(config: ConfigParser, folder: Path, device: torch.device) -> Iterator[Callable[[], float]]:
    """Baseline D in a process of its own; gives the seconds of `PAPER_STEPS` steps."""
    items = folder.parent / f"paper_{config['name']}"
    save_items(config, items)
    path = folder.parent / f"{config['name']}.json"
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    script = ROOT / "benchmarks" / "paper_loop.py"
    command = [sys.executable, str(script), str(path), str(items), device.type]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds() -> float:
        process.stdin.write(f"{PAPER_STEPS}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield seconds
    finally:
        process.stdin.close()
        process.wait()


def quiet(run: Callable[[], float]) -> Callable[[], float]:
    """A contestant without its progress bar and messages on the screen; they are made all the same."""

    def silent() -> float:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            return run()

    return silent


if __name__ == "__main__":
    main()
