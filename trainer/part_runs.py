"""Training the parts of a group, several at a time, each by a train.py of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from base.run_files import newest_of_run
from logger.log import get_logger
from trainer.group import Group, Part
from utils.checkpoint import load_checkpoint
from utils.cli import Stopped
from utils.errors import UserError
from utils.files import write_json
from utils.strict_json import parse_json, read_json
from utils.versions import ROOT

logger = get_logger(__name__)

MINUTES_FILE = "minutes.json"
SCRIPT = ROOT / "train.py"
# Seconds between two looks at the runs.
_LOOK = 0.2
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        device: what ``-d`` gets.
        threads: how many it computes with on the CPU.
    """

    device: str
    threads: int


class PartRuns:
    """Trains what is left of a group's parts.

    Args:
        group: what to train.
        folder: of the group.
        slots: as many runs at a time.
        lock: an open file that the runs inherit: while one of them lives, its group is at work.
    """

    def __init__(self, group: Group, folder: Path, slots: Sequence[Slot], lock: int) -> None:
        self._group, self._folder, self._lock = group, folder, lock
        self._free = list(slots)
        self._running: list[_Run] = []
        # Of each part, also of what earlier processes trained of it.
        self.minutes = read_minutes(folder / MINUTES_FILE)

    def train(self) -> None:
        """Train all parts to their last epoch. What is done stays; what was interrupted goes on.

        Raises:
            UserError: a run failed; the others are stopped, their state saved.
            Stopped, KeyboardInterrupt: a signal came; all runs are stopped, their state saved.
        """
        waiting = [part for part in self._group.runs if last_checkpoint(self._folder, part) is None]
        done = len(self._group.runs) - len(waiting)
        logger.info("%d runs, %d of them done; %d at a time", len(self._group.runs), done, len(self._free))
        try:
            while waiting or self._running:
                while waiting and self._free:
                    part = self._longest(waiting)
                    self._running.append(_Run(part, self._folder, self._free.pop(0), self._lock))
                    waiting.remove(part)
                time.sleep(_LOOK)
                for run in [run for run in self._running if run.look()]:
                    self._end(run)
                    if problem := run.problem():
                        logger.info("all that %s said: %s", run.part.name, run.output)
                        raise UserError(run.part.name, problem)
                    done += 1
                    name, all_of_them = run.part.name, len(self._group.runs)
                    logger.info("%s: done in %.1f minutes, %d of %d", name, self.minutes[name], done, all_of_them)
        except BaseException as error:
            self._stop(isinstance(error, (KeyboardInterrupt, Stopped)))
            raise

    def _longest(self, waiting: Sequence[Part]) -> Part:
        """The part that will probably take longest, so that none is left over at the end; unknown ones first."""
        longest = {}
        for part in self._group.runs:
            if last_checkpoint_path(self._folder, part).is_file() and part.name in self.minutes:
                longest[part.member] = max(longest.get(part.member, 0.0), self.minutes[part.name])
        return max(waiting, key=lambda part: longest.get(part.member, float("inf")))

    def _end(self, run: _Run) -> None:
        """Take a run that has ended from those that run."""
        self._running.remove(run)
        self._free.insert(0, run.slot)
        name = run.part.name
        self.minutes[name] = self.minutes.get(name, 0.0) + (time.monotonic() - run.began) / 60
        with contextlib.suppress(OSError):
            # It is worth no run.
            write_json(self._folder / MINUTES_FILE, self.minutes)

    def _stop(self, asked: bool) -> None:
        """Have all runs save where they are and end; a further signal ends them at once."""
        if not self._running:
            return
        names = ", ".join(run.part.name for run in self._running)
        logger.info("stopping %s%s", names, "; once more stops at once" if asked else "")
        runs = list(self._running)
        try:
            for run in runs:
                run.process.terminate()
            for run in runs:
                run.process.wait()
                self._end(run)
        except BaseException:
            for run in runs:
                run.process.kill()
            raise


class _Run:
    """A train.py that trains one part."""

    def __init__(self, part: Part, folder: Path, slot: Slot, lock: int) -> None:
        self.part, self.slot = part, slot
        self._folder, self._epochs = folder / part.name, 0
        self.output = folder / "output" / f"{part.name}.log"
        self.output.parent.mkdir(exist_ok=True)
        newest = newest_of_run(self._folder) if self._folder.is_dir() else None
        if newest:
            arguments = ["-r", str(newest)]
            self._epochs = load_checkpoint(newest)["epoch"]
        else:
            config = folder / "configs" / f"{part.name}.json"
            write_json(config, part.config.to_dict())
            arguments = ["-c", str(config), "--run_id", f"{folder.name}/{part.name}"]
            # What a run left that was killed before it saved anything.
            for left in (self._folder, part.config.save_root / "log" / part.config["name"] / folder.name / part.name):
                shutil.rmtree(left, ignore_errors=True)
        logger.info("%s: %s", part.name, f"goes on after epoch {self._epochs}" if newest else "begins")
        self.began = time.monotonic()
        with self.output.open("ab") as file:
            self.process = start([*arguments, "-d", slot.device], slot.threads, file, lock)

    def look(self) -> bool:
        """Say what epochs are done since the last look; whether the run has ended."""
        ended = self.process.poll() is not None
        with contextlib.suppress(OSError, ValueError):
            lines = (self._folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            for figures in map(parse_json, lines[self._epochs :]):
                shown = [f"{name} {figures[name]:.4f}" for name in self._names() if name in figures]
                logger.info("%s: epoch %d/%d %s", self.part.name, figures["epoch"], self.part.epochs, " ".join(shown))
                self._epochs += 1
        return ended

    def _names(self) -> list[str]:
        metrics = self.part.config["metrics"]
        return ["loss", "val_loss", *(f"val_{name}" for name in metrics[-1:])]

    def problem(self) -> str | None:
        """Why a run that has ended failed; None where it did not."""
        if (status := self.process.returncode) == 0:
            return None
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        lines = [line for line in _tail(self.output).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
        return f"ended with status {status}: {lines[-1].strip()}" if lines else f"ended with status {status}"


def start(arguments: Sequence[str], threads: int, output: IO[bytes], lock: int) -> subprocess.Popen[bytes]:
    """Start a train.py in the background.

    It is in a session of its own, since a Ctrl-C in the terminal would reach it beside what its parent sends, and two
    signals end it at once. A parent that is killed takes it along: it gets SIGTERM then, and saves.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        pass_fds=[lock],
        preexec_fn=(lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)) if prctl else None,
    )


def last_checkpoint_path(folder: Path, part: Part) -> Path:
    """Where the checkpoint of a part's last epoch is, once it is trained."""
    return folder / part.name / f"checkpoint-epoch{part.epochs}.pth"


def last_checkpoint(folder: Path, part: Part) -> Path | None:
    """The checkpoint of a part's last epoch; None where there is none, or it is damaged."""
    path = last_checkpoint_path(folder, part)
    return path if path.is_file() and newest_of_run(path.parent) == path else None


def read_minutes(path: Path) -> dict[str, float]:
    """How long each run took, by its name; nothing where the file cannot be read."""
    try:
        found: Any = read_json(path)
    except (OSError, ValueError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


def _tail(path: Path, most: int = 10_000) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        return file.read().decode("utf-8", "replace")
