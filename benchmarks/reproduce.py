#!/usr/bin/env python3
"""Rebuilds the table of docs/results.md from the recordings: hours, in the background, and it goes on where it was.

    make reproduce                        or: python benchmarks/reproduce.py
    tail -f saved/reproduce.log           follow it
    kill $(cat saved/reproduce.pid)       stop it: what trains saves where it is

Features, then for each task the ensemble (configs/best_task*.json) and its student (configs/small_task*.json) in five
folds each, then the table. What is done is not done again, and an interrupted training goes on: repeat the command.
Needs the recordings in data/SPRSound (python preprocess.py --download).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

from utils.cli import Stopped, run_script
from utils.errors import UserError
from utils.lock import lock

TASKS = ("1_1", "1_2", "2_1", "2_2")
FEATURES = ("multimel_event", "multimel")
RUN = "results"
MODELS = Path("saved/models")
LOG, PID = Path("saved/reproduce.log"), Path("saved/reproduce.pid")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        words: of the command, without Python.
        done: the files that there are once it is done; none where the command itself sees what is left.
    """

    words: tuple[str, ...]
    done: tuple[Path, ...] = ()


def steps() -> list[Step]:
    """All commands, in their order; the last one prints the table."""
    result = [Step(("preprocess.py", "--method", method)) for method in FEATURES]
    groups = []
    for task in TASKS:
        best, small = (MODELS / f"{kind}_task{task}" / RUN for kind in ("best", "small"))
        for folder, more in ((best, ()), (small, ("--teacher", str(best)))):
            config = f"configs/{folder.parent.name}.json"
            words = ("train.py", "-c", config, "--folds", "5", "--run_id", RUN, *more)
            result.append(Step(words, (folder / "model_best.pth", folder / "oof" / "metrics.json")))
            groups.append(folder)
    reports = (str(folder / "oof" / "metrics.json") for folder in groups)
    return [*result, Step(("benchmarks/results_table.py", *reports))]


def work() -> None:
    """Run all that is left, one after the other; what they say goes where this process writes.

    Raises:
        UserError: a command failed.
        Stopped, KeyboardInterrupt: a signal came; the command has been stopped.
    """
    for number, step in enumerate(todo := steps(), start=1):
        done = bool(step.done) and all(path.is_file() for path in step.done)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        print(f"== {now} {number}/{len(todo)} python {' '.join(step.words)}{': done' if done else ''}", flush=True)
        if done:
            continue
        with subprocess.Popen([sys.executable, *step.words], stdin=subprocess.DEVNULL) as process:
            try:
                status = process.wait()
            except (Stopped, KeyboardInterrupt):
                process.terminate()
                raise
        if status:
            raise UserError(" ".join(step.words), f"ended with status {status}", "see above; then repeat the command")


def in_background() -> bool:
    """Leave the terminal; True in the process that goes on, which writes to the log."""
    if os.fork():
        return False
    os.setsid()
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return True


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--wait", action="store_true", help="work in this terminal, not in the background")
    # That of `run_script`.
    result.set_defaults(debug=False)
    return result


def main(args: argparse.Namespace) -> None:
    """Begin, unless it is at work already."""
    os.chdir(ROOT)
    LOG.parent.mkdir(exist_ok=True)
    # Not `only_one`: the lock stays with the process in the background when this one has left.
    with PID.open("a", encoding="utf-8") as file:
        if lock(file.fileno()) is False:
            number = PID.read_text(encoding="utf-8").strip()
            print(f"it is at work already, process {number}; follow it: tail -f {LOG}; stop it: kill {number}")
            return
        if not args.wait and not in_background():
            print(f"begun in the background; follow it: tail -f {LOG}; stop it: kill $(cat {PID})")
            return
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        work()


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
