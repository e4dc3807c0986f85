#!/usr/bin/env python3
"""Rebuilds the table of docs/results.md from the recordings: hours, in the background, and it goes on where it was.

    make reproduce                        or: python benchmarks/reproduce.py
    tail -f saved/reproduce.log           follow it
    kill $(cat saved/reproduce.pid)       stop it: what trains saves where it is

Features, then for each task the ensemble (configs/best_task*.json) and its student (configs/small_task*.json) in five
folds each, the ensembles once more in folds of recording dates, ages and noise levels, LightCNN, ResNet18 and AST on
the same features, what each part of the recipes is worth (benchmarks/ablation.py), and the table. What is done is not
done again, and an interrupted training goes on: repeat the command.
Needs the recordings in data/SPRSound (python preprocess.py --download).
"""

from __future__ import annotations

import argparse
import sys

from steps import Step, begin, folder_of, folds, run
from steps import parser as job_parser

from utils.cli import run_script

# Level 1 is put together of the networks of level 2, which are trained first.
TASKS = ("1_2", "1_1", "2_2", "2_1")
FEATURES = ("multimel_event", "multimel")
RUN = "results"
# Larger networks on the same features, at level 2; the AST is a tiny one.
OTHERS = tuple(f"task{task}_{name}_multimel" for task in ("1_2", "2_2") for name in ("lightcnn", "resnet18", "ast"))
# Folds of patients unlike those of the other folds.
SHIFTS = ("date", "age", "noise")


def steps() -> list[Step]:
    """All commands, in their order; the last one prints the table."""
    result = [Step(("preprocess.py", "--method", method)) for method in FEATURES]
    groups = []
    for task in TASKS:
        best, small = f"best_task{task}", f"small_task{task}"
        fine = f"{task[0]}_2"
        teacher = ("--teacher", str(folder_of(f"best_task{fine}", RUN)))
        result += [folds(best, RUN, *reused("best", task)), folds(small, RUN, *teacher, *reused("small", task))]
        groups += [folder_of(best, RUN), folder_of(small, RUN)]
    for shift in SHIFTS:
        run_id, split = f"shift_{shift}", ("--set", f"data_loader.args.split_by={shift}")
        result += [folds(f"best_task{task}", run_id, *reused("best", task, run_id), *split) for task in TASKS]
        groups += [folder_of(f"best_task{task}", run_id) for task in TASKS]
    for name in OTHERS:
        result.append(folds(name, RUN))
        groups.append(folder_of(name, RUN))
    reports = (str(folder / "oof" / "metrics.json") for folder in groups)
    return [*result, Step(("benchmarks/ablation.py", "--wait")), Step(("benchmarks/results_table.py", *reports))]


def reused(kind: str, task: str, run_id: str = RUN) -> tuple[str, ...]:
    """The arguments that take the runs of level 2 for level 1."""
    task, level = task.split("_")
    return ("--reuse", str(folder_of(f"{kind}_task{task}_2", run_id))) if level == "1" else ()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return job_parser(__doc__)


def main(args: argparse.Namespace) -> None:
    """Begin, unless it is at work already."""
    begin("reproduce", lambda: run(steps()), args.wait)


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
