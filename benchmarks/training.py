#!/usr/bin/env python3
"""Training steps of the full Trainer against a bare loop, against other Trainers, and against plain paper code.

    python benchmarks/training.py
    python benchmarks/training.py --device cuda --steps 100

Baseline C (bare_loop.py) is forward, loss, backward and step over batches in memory. Ours is whole epochs of the
Trainer, made from a shipped config as train.py makes it: it loads from the store, augments, clips gradients, draws the
progress bar, logs to TensorBoard and ends with the metrics over all items. Both run in this process, in turn. The
Trainers of Lightning and Hugging Face get C's batches in memory; they and baseline D (paper_loop.py) have processes of
their own, as a user would start them; --same-memory gives the Trainers the program's setting for memory too. All but D
have the same model, precision and optimizer, all the same number of threads; no side validates.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import bare_loop
import torch
from harness import Measured, against, in_turn, parser, record
from loop_process import in_own_process
from training_case import CASES, Case, Turn, build_trainer, case_config, data_folder, wait

from trainer.trainer import Trainer
from utils.memory import keep_freed_memory

# The other Trainers: the module of the loop, and the package that it needs.
OTHERS = {"Lightning's Trainer": ("lightning_loop", "lightning"), "HF Trainer": ("hugging_face_loop", "accelerate")}


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__, runs=3)
    arguments.add_argument("--steps", type=int, default=6, metavar="N", help="of one turn (default: %(default)s)")
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments.add_argument("--same-memory", action="store_true", help="the other Trainers keep freed memory as well")
    names = [case.name for case in CASES]
    arguments.add_argument("--models", default=",".join(names), help="(default: %(default)s)")
    args = arguments.parse_args()
    if unknown := set(args.models.split(",")) - set(names):
        arguments.error(f"--models: {sorted(unknown)[0]} is none of {', '.join(names)}")
    keep_freed_memory()
    lines = []
    for case in (case for case in CASES if case.name in args.models.split(",")):
        with data_folder(case, args.data_dir, args.steps) as folder:
            lines += compare(case, folder, args)
    record("training", lines, args, device=args.device, steps=args.steps, threads=torch.get_num_threads())


def compare(case: Case, folder: Path, args: argparse.Namespace) -> list[Measured]:
    """All contestants of one model, in turn."""
    device = torch.device(args.device)
    config = case_config(case, folder)
    trainer = build_trainer(config, device)
    contestants: dict[str, Turn] = {"C": bare_loop.prepare(config, device, args.steps, folder.parent)}
    contestants["ours"] = lambda: len(trainer.data_loader.train_indices) / trainer_epoch(trainer)
    with contextlib.ExitStack() as stack:

        def own_process(name: str, module: str, keep_memory: bool = False) -> None:
            its_folder = folder.parent / f"{case.name}_{module}"
            process = in_own_process(module, config, device, args.steps, its_folder, keep_memory)
            contestants[name] = stack.enter_context(process)

        for name, (module, package) in OTHERS.items():
            if find_spec(package):
                own_process(name, module, args.same_memory)
            else:
                print(f"{name} is left out: no {package} (pip install -r requirements-bench.txt)", file=sys.stderr)
        if case.paper:
            own_process("D", "paper_loop")
        for run in contestants.values():
            quietly(run)  # the first steps are slower
        print(case.name, file=sys.stderr)
        values = in_turn({name: partial(quietly, run) for name, run in contestants.items()}, args.runs)
    trainer.writer.close()
    return _lines(case, values, f"{trainer.precision}, batches of {case.batch_size}")


def trainer_epoch(trainer: Trainer) -> float:
    """Seconds of the Trainer's next epoch: its steps and its metrics."""
    trainer.start_epoch += 1
    wait(trainer.device)
    start = time.perf_counter()
    trainer._train_epoch(trainer.start_epoch)
    wait(trainer.device)
    return time.perf_counter() - start


def quietly(run: Turn) -> float:
    """A turn whose progress bar is made, but not shown."""
    with contextlib.redirect_stderr(io.StringIO()):
        return run()


def _lines(case: Case, values: dict[str, list[float]], note: str) -> list[Measured]:
    """Ours and each of the others, which are its baselines."""
    lines = []
    for name, its in values.items():
        if name != "ours":
            base = Measured(f"{case.name}: {name}", "samples/s", its, note="fp32" if name == "D" else note)
            lines += [base, against(f"{case.name}: ours", "samples/s", values["ours"], base)]
    return lines


if __name__ == "__main__":
    main()
