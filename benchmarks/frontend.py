#!/usr/bin/env python3
"""Training straight from audio against training from stored features: whole epochs of the Trainer, ResNet18.

    python benchmarks/frontend.py
    python benchmarks/frontend.py --device cuda --workers 8 --items 6400

Both runs are those of the shipped configs, masks included; the one from audio decodes, changes gain, noise and shift,
and computes the STFT (or, with --method mel, the log-mel) in the step. No pretrained weights are fetched.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import ROOT, Measured, against, in_turn, parser, record

from data_loader.extract import extract
from data_loader.features import methods
from data_loader.tables import build_tables, write_tables
from trainer.setup import make_trainer
from trainer.trainer import Trainer
from utils.config import ConfigParser, read_config, set_key
from utils.memory import keep_freed_memory

TASKS = {1: ("events", "task1_1_resnet18.json"), 2: ("recordings", "task2_1_resnet18.json")}
KINDS = ("stored features", "audio")


def make_data(data_dir: Path, folder: Path, items: int, method: str) -> float:
    """So many training items of each task with their features; seconds that their features took."""
    folder.mkdir()
    (folder / "BioCAS2022").symlink_to((data_dir / "BioCAS2022").resolve())
    tables = build_tables(folder)
    chosen = {}
    for task in TASKS:
        table = tables.of(task)
        table = table[table["split"] == "train"]
        chosen[f"task{task}"] = table.iloc[np.linspace(0, len(table) - 1, items).astype(int)].reset_index(drop=True)
    tables = replace(tables, **chosen)
    write_tables(tables, folder)
    feature = methods[method]
    start = time.perf_counter()
    by_task = {task: tables.of(task) for task in TASKS}
    extract(folder, feature, feature.defaults, by_task, tables.digests, workers=os.cpu_count() or 1)
    return time.perf_counter() - start


class Timed:
    """A loader that counts the seconds that its user waits for it."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


class Contestant:
    """One training run, an epoch at a time.

    Args:
        task: events (1) or recordings (2).
        kind: one of `KINDS`.
        args: of the command line.
        folder: with the folder ``data``; runs go there.
    """

    def __init__(self, task: int, kind: str, args: argparse.Namespace, folder: Path) -> None:
        content = read_config(ROOT / "configs" / TASKS[task][1])
        loader = content["data_loader"]["args"]
        loader |= {"data_dir": str(folder / "data"), "validation_split": 0, "input_dir": f"processed_{args.method}"}
        if kind == "audio":
            audio = read_config(ROOT / "configs" / "task1_1_resnet18_audio.json")["data_loader"]["args"]
            loader |= {"input_dir": None, "frontend": args.method, "augment": audio["augment"]}
            loader["num_workers"] = args.workers
        set_key(content, "arch.args.pretrained", False)
        content["trainer"] |= {"save_dir": str(folder / "saved"), "tensorboard": False, "monitor": "off"}
        config = ConfigParser(content)
        config.make_run_folders()
        torch.manual_seed(config.seed)
        self.device = torch.device(args.device)
        self.trainer: Trainer = make_trainer(config, self.device)
        self.loader = self.trainer.data_loader = Timed(self.trainer.data_loader)
        self.trainer.frontend.register_forward_pre_hook(lambda *_: self._tick(-1))
        self.trainer.frontend.register_forward_hook(lambda *_: self._tick(+1))
        self.frontend_seconds = 0.0
        self.epoch = 0
        self.loads: list[float] = []
        self.frontends: list[float] = []

    def _tick(self, sign: int) -> None:
        """The clock as the front end starts and ends."""
        self._wait()
        self.frontend_seconds += sign * time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def step(self) -> float:
        """Train an epoch; milliseconds a step."""
        self.epoch += 1
        self.loader.seconds = self.frontend_seconds = 0.0
        start = time.perf_counter()
        self.trainer._train_epoch(self.epoch)
        self._wait()
        steps = len(self.loader)
        self.loads.append(1000 * self.loader.seconds / steps)
        self.frontends.append(1000 * self.frontend_seconds / steps)
        return 1000 * (time.perf_counter() - start) / steps


def lines_of(task: int, contestants: dict[str, Contestant], values: dict[str, list[float]]) -> list[Measured]:
    """What was measured for one task."""
    items = TASKS[task][0]
    stored, audio = (contestants[f"{items}, {kind}"] for kind in KINDS)
    times, stored_times = values[f"{items}, audio"], values[f"{items}, stored features"]
    baseline = Measured(f"{items}: stored features", "ms/step", stored_times)
    parts = list(zip(times, audio.loads, audio.frontends, strict=True))
    store_parts = zip(stored_times, stored.loads, stored.frontends, strict=True)
    return [
        baseline,
        against(f"{items}: audio, augmented", "ms/step", times, baseline, "the same, from the files"),
        Measured(f"{items}: audio: loading", "ms/step", audio.loads, note="decoding, cutting, collating"),
        Measured(f"{items}: audio: front end", "ms/step", audio.frontends, note="augmentation, features, masks"),
        Measured(
            f"{items}: audio: share of both",
            "% of the rest of the step",
            [100 * (load + front) / (time - load - front) for time, load, front in parts],
            note="promised: under 10",
        ),
        Measured(
            f"{items}: stored features: share of both",
            "% of the rest of the step",
            [100 * (load + front) / (time - load - front) for time, load, front in store_parts],
        ),
    ]


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__, runs=3)
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the training")
    arguments.add_argument("--items", type=int, default=192, metavar="N", help="events and recordings of an epoch")
    arguments.add_argument("--method", default="stft", choices=("stft", "mel"), help="of the features")
    arguments.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode")
    args = arguments.parse_args()
    logging.disable(logging.WARNING)
    keep_freed_memory()  # as the scripts do
    with tempfile.TemporaryDirectory(prefix="frontend_") as name:
        folder = Path(name)
        seconds = make_data(args.data_dir, folder / "data", args.items, args.method)
        lines = []
        for task, (items, _) in TASKS.items():
            contestants = {f"{items}, {kind}": Contestant(task, kind, args, folder) for kind in KINDS}
            values = in_turn({name: contestant.step for name, contestant in contestants.items()}, args.runs + 1)
            # The first turn warms up.
            values = {name: times[1:] for name, times in values.items()}
            for contestant in contestants.values():
                del contestant.loads[0], contestant.frontends[0]
            lines += lines_of(task, contestants, values)
        lines.append(Measured("features of both, preprocessed", "s", [seconds], note="once, and not from audio"))
        record("frontend", lines, args, device=args.device, items=args.items, method=args.method)


if __name__ == "__main__":
    main()
