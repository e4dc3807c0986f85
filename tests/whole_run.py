"""Whole runs of train.py, each in a process of its own, and all that they leave."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.killed import Fork, die_at_call, die_at_change
from tests.tiny import run, tiny_config, write_config
from tests.trainer.test_resume import same, without_speed
from trainer import trainer
from trainer.trainer import Trainer
from utils.checkpoint import load_checkpoint
from utils.strict_json import parse_json

# Six steps an epoch, and what draws random numbers.
COMMON = {
    "arch__args__dropout": 0.5,
    "arch__args__norm": True,
    "data_loader__args__augment": {"time_masks": 2, "freq_masks": 2},
    "data_loader__args__batch_size": 7,
    "trainer__epochs": 3,
    "trainer__save_every_steps": 2,
}


def folder_for(folder: Path, data_dir: Path, **changes: object) -> Path:
    """A new folder with a config.json for `begin`; `changes` as for `tiny_config`."""
    folder.mkdir()
    write_config(folder / "config.json", tiny_config(data_dir, "saved", **COMMON | changes))
    return folder


def child(folder: Path, arguments: tuple[str, ...], kind: str, at: int | None, tell) -> None:
    """Run train.py in this process and kill it at its `at`-th change to files, or at its `at`-th call in the training.

    The steps of the last checkpoint are written to steps.txt.

    Args:
        kind: "change" or "call".
        tell: gets the numbers of both, of a run that was not killed.
    """
    os.chdir(folder)
    torch.set_num_threads(1)
    # What the last process left in its generator must not matter.
    torch.manual_seed(os.getpid())
    # Each step is logged, not one every two seconds: the log of two runs is then the same.
    trainer.LOG_SECONDS = 0
    changes = die_at_change(Path("saved"), at if kind == "change" else None)
    calls, train = [], Trainer.train

    def counted(self: Trainer) -> dict[str, float]:
        calls.append(die_at_call(at if kind == "call" else None))
        return train(self)

    note_saved = Trainer._note_saved

    def noted(self: Trainer, path: Path) -> None:
        note_saved(self, path)
        (folder / "steps.txt").write_text(str(self.global_step))

    Trainer.train, Trainer._note_saved = counted, noted
    status = run("train", "-c", "config.json", "-r", "auto", *arguments)
    sys.setprofile(None)
    tell({"change": changes(), "call": calls[0]()})
    sys.exit(status)


def begin(folder: Path, arguments: tuple[str, ...] = (), kind: str = "call", at: int | None = None) -> Fork:
    """Run train.py in a folder with a config.json, in a process of its own."""
    return Fork(child, folder, arguments, kind, at, output=folder / "output.txt")


def steps_saved(folder: Path) -> int:
    """The steps of the newest checkpoint to go on from; all checkpoints that are there have to be whole."""
    found = {path: load_checkpoint(path) for path in folder.rglob("*.pth")}
    return max((found[path]["global_step"] for path in found if path.name.startswith("checkpoint-")), default=0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a log: step and value, by tag; of the speed the step alone."""
    accumulator = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, 0.0 if "samples_per_second" in tag else event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def outcome(folder: Path) -> dict[str, object]:
    """All that a run leaves, without what depends on the clock and on the number of workers."""
    saved = folder / "saved"
    newest = folder / (saved / "newest_run.txt").read_text().strip()
    found: dict[str, object] = {
        "files": sorted(path.name for path in [*saved.iterdir(), *newest.iterdir()]),
        "metrics": without_speed(map(parse_json, (newest / "metrics.jsonl").read_text().splitlines())),
    }
    paths = {path.name: path for path in newest.glob("*.pth")} | {"published": saved / "model_best.pth"}
    for name, path in paths.items():
        checkpoint = load_checkpoint(path)
        checkpoint["history"] = without_speed(checkpoint["history"])
        checkpoint["config"]["data_loader"]["args"].pop("num_workers", None)
        # Says which processes the run had.
        del checkpoint["origins"]
        found |= {f"{name}: {key}": value for key, value in checkpoint.items()}
    logs = saved / "log" / newest.parent.name / newest.name
    return found | {f"log/{part}": scalars(logs / part) for part in ("", "train", "valid") if (logs / part).exists()}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """In what two outcomes differ."""
    both = one.keys() & other.keys()
    return sorted((one.keys() ^ other.keys()) | {key for key in both if not same(one[key], other[key])})
