"""What takes hours: commands one after the other, by one process at a time, in the background.

What a job says goes to ``saved/<name>.log``, the number of its process to ``saved/<name>.pid``. To stop it, send that
process SIGTERM: the command at work gets it too, saves where it is, and is waited for.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

from utils.cli import Stopped
from utils.errors import UserError
from utils.lock import lock

SAVED = Path("saved")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        words: of the command, without Python.
        done: the files that there are once it is done; none where the command itself sees what is left.
    """

    words: tuple[str, ...]
    done: tuple[Path, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left of it."""
        return bool(self.done) and all(path.is_file() for path in self.done)


def folds(config: str, run_id: str, *more: str) -> Step:
    """Train five folds of a config; an interrupted training goes on when its command is repeated.

    Args:
        config: name in configs/ and of the runs.
        more: arguments.
    """
    folder = folder_of(config, run_id)
    words = ("train.py", "-c", f"configs/{config}.json", "--folds", "5", "--run_id", run_id, *more)
    return Step(words, (folder / "model_best.pth", folder / "oof" / "metrics.json"))


def folder_of(config: str, run_id: str) -> Path:
    """Where train.py puts a run of a config."""
    return SAVED / "models" / config / run_id


def run(steps: Sequence[Step]) -> None:
    """Run all that is left, one after the other; what they say goes where this process writes.

    Raises:
        UserError: a command failed.
        Stopped, KeyboardInterrupt: a signal came; the command has been stopped.
    """
    for number, step in enumerate(steps, start=1):
        now, done = time.strftime("%Y-%m-%d %H:%M:%S"), ": done" if step.is_done else ""
        print(f"== {now} {number}/{len(steps)} python {' '.join(step.words)}{done}", flush=True)
        if step.is_done:
            continue
        # In a session of its own: a Ctrl-C in the terminal would reach it beside what is sent here.
        process = subprocess.Popen([sys.executable, *step.words], stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            status = process.wait()
        except (Stopped, KeyboardInterrupt):
            process.terminate()
            process.wait()
            raise
        if status:
            raise UserError(" ".join(step.words), f"ended with status {status}", "see above; then repeat the command")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The command line that all jobs have."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--wait", action="store_true", help="work in this terminal, not in the background")
    # That of `run_script`.
    result.set_defaults(debug=False)
    return result


def begin(name: str, work: Callable[[], None], wait: bool) -> None:
    """Do a job in the root folder, unless it is at work already.

    Args:
        name: of the job.
        work: the job; relative paths are those of the root folder.
        wait: for its end, and write to this terminal.

    Raises:
        UserError: it is to be waited for, and another process is at work.
    """
    os.chdir(ROOT)
    SAVED.mkdir(exist_ok=True)
    log, pid = SAVED / f"{name}.log", SAVED / f"{name}.pid"
    # Not `only_one`: the lock stays with the process in the background when this one has left.
    with pid.open("a", encoding="utf-8") as file:
        if lock(file.fileno()) is False:
            number = pid.read_text(encoding="utf-8").strip()
            if wait:
                raise UserError(pid, f"process {number} is at work already", f"wait, or stop it: kill {number}")
            print(f"it is at work already, process {number}; follow it: tail -f {log}; stop it: kill {number}")
            return
        if not wait and not _in_background(log):
            print(f"begun in the background; follow it: tail -f {log}; stop it: kill $(cat {pid})")
            return
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        work()


def _in_background(log: Path) -> bool:
    """Leave the terminal; True in the process that goes on, which writes to the log."""
    if os.fork():
        return False
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return True
