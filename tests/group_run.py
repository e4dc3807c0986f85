"""Groups of runs, `train.py --folds`, whose parts train in forks of a process that has imported everything."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

from tests.killed import Fork
from tests.tiny import run, tiny_config, write_config
from trainer.trainer import Trainer

# Of recordings, so that a folder of audio has the items of a split.
COMMON = {
    "data_loader__args__task": 2,
    "data_loader__args__validation_split": 0.2,
    "metrics": ["score_task2"],
    "decide": "counted",
}
MEMBERS = {
    "dropout": {"arch__args": {"label_dim": 3, "dropout": 0.5}, "data_loader__args__batch_size": 4},
    "norm": {
        "arch__args": {"label_dim": 3, "norm": True},
        "data_loader__args__batch_size": 5,
        "data_loader__args__normalize": 0.5,
        "trainer__precision": "bf16",
    },
}


def write_members(folder: Path, data_dir: Path, **changes: object) -> Path:
    """Two members' configs and that of their ensemble, which is returned; `changes` as for `tiny_config`, of both."""
    for name, own in MEMBERS.items():
        config = tiny_config(data_dir, folder / "saved", name=name, **COMMON | own | changes)
        write_config(folder / f"{name}.json", config)
    return write_config(folder / "both.json", {"name": "both", "ensemble": [f"{name}.json" for name in MEMBERS]})


class ForkedRun:
    """In place of the process that `trainer.part_runs.start` gives.

    Attributes:
        killed: after how many steps saved in the midst of an epoch which process gets which signal: (words that are in
            the arguments, steps, signal, process or None for its own).
    """

    killed: tuple[str, int, int, int | None] | None = None

    def __init__(self, arguments: Sequence[str], threads: int, output: IO[bytes], lock: int) -> None:
        kill = self.killed if self.killed and self.killed[0] in " ".join(arguments) else None
        self._fork = Fork(_train, tuple(arguments), kill, output=Path(output.name))

    @property
    def returncode(self) -> int | None:
        return self._fork.process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self) -> None:
        self._fork.end()

    def terminate(self) -> None:
        self._fork.process.terminate()

    def kill(self) -> None:
        self._fork.process.kill()


def _train(arguments: tuple[str, ...], kill: tuple[str, int, int, int | None] | None, tell) -> None:
    torch.set_num_threads(1)
    saved, save_place = [], Trainer._save_place

    def counted(self: Trainer, *args: object) -> None:
        save_place(self, *args)
        saved.append(args)
        if kill and len(saved) == kill[1]:
            os.kill(kill[3] or os.getpid(), kill[2])
            while kill[3]:
                # The signal to come is the parent's; it may be there already, which a pause would miss.
                signal.sigtimedwait([], 0.05)
                self._stop_if_asked()

    Trainer._save_place = counted
    sys.exit(run("train", *arguments))
