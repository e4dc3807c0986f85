#!/usr/bin/env python3
"""Rebuilds the table of docs/results.md from the recordings: hours, in the background, and it goes on where it was.

    make reproduce                        or: python benchmarks/reproduce.py
    tail -f saved/reproduce.log           follow it
    kill $(cat saved/reproduce.pid)       stop it: what trains saves where it is

Features, then for each task the ensemble (configs/best_task*.json) and its student (configs/small_task*.json) in five
folds each, then what each part of the recipes is worth (benchmarks/ablation.py), then the table. What is done is not
done again, and an interrupted training goes on: repeat the command.
Needs the recordings in data/SPRSound (python preprocess.py --download).
"""

from __future__ import annotations

import argparse
import sys

from steps import Step, begin, folder_of, folds, run
from steps import parser as job_parser

from utils.cli import run_script

TASKS = ("1_1", "1_2", "2_1", "2_2")
FEATURES = ("multimel_event", "multimel")
RUN = "results"


def steps() -> list[Step]:
    """All commands, in their order; the last one prints the table."""
    result = [Step(("preprocess.py", "--method", method)) for method in FEATURES]
    groups = []
    for task in TASKS:
        best, small = f"best_task{task}", f"small_task{task}"
        result += [folds(best, RUN), folds(small, RUN, "--teacher", str(folder_of(best, RUN)))]
        groups += [folder_of(best, RUN), folder_of(small, RUN)]
    reports = (str(folder / "oof" / "metrics.json") for folder in groups)
    return [*result, Step(("benchmarks/ablation.py", "--wait")), Step(("benchmarks/results_table.py", *reports))]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return job_parser(__doc__)


def main(args: argparse.Namespace) -> None:
    """Begin, unless it is at work already."""
    begin("reproduce", lambda: run(steps()), args.wait)


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
