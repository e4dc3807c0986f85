#!/usr/bin/env python3
"""Which of several runs is better, and how sure that is, from their predictions of the same items.

    python benchmarks/compare.py saved/models/A/results/oof saved/models/B/results/oof
    python benchmarks/compare.py BASE OTHER OTHER --decide counted

Each is a predictions.csv that test.py or train.py --folds wrote, or its folder; its metrics.json lies beside it. The
others are compared with the first one: a difference above 0 means that they are better. Its 95 % interval is by
bootstrap over patients, the same ones drawn for both: what makes some patients hard for either is not part of it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from harness import cell
from numpy.typing import NDArray

from data_loader.audio_dataset import subject_of
from data_loader.classes import has_poor_quality
from data_loader.subject import Subject, resp_subject
from model.decision import decide
from model.metric import SCORINGS, confusion_matrix
from trainer.bootstrap import Difference, paired_differences
from utils.cli import run_script
from utils.errors import UserError
from utils.strict_json import read_json

# What needs no proportions of the training, which are in a checkpoint.
RULES = ("argmax", "counted")
_ITEM = ("wav_name", "event_id", "start_ms", "end_ms", "start", "end")
_PROBABILITY = "prob_"
_HINT = "name a predictions.csv of test.py or train.py --folds, or its folder"
# The main figure first; a scoring without classes that are normal has accuracy alone.
_FIGURES = {"score": "Score", "sensitivity": "SE", "specificity": "SP"}


@dataclass(frozen=True)
class Run:
    """What was predicted.

    Attributes:
        path: of its predictions.csv.
        rule: that its own report decided by; the first of `RULES` where it is none of them.
        classes: names, in order.
        items: one row an item, as text: what names it, whose it is (`Subject.group_column`), and its `target`.
        prob: ``(items, classes)`` float32.
    """

    path: Path
    subject: Subject
    rule: str
    classes: tuple[str, ...]
    items: pd.DataFrame
    prob: NDArray[np.float32]

    @property
    def names(self) -> list[tuple[str, ...]]:
        """What names each item: its file, and the event or the time in it."""
        return list(zip(*(self.items[column] for column in _ITEM if column in self.items), strict=True))

    @property
    def target(self) -> NDArray[np.int64]:
        """``(items,)`` class indices."""
        return pd.Index(self.classes).get_indexer(self.items["target"]).astype(np.int64)


def read_run(path: Path) -> Run:
    """The run that wrote a predictions.csv.

    Args:
        path: of the file, or of its folder.

    Raises:
        UserError: names the file that is missing or is none of these.
    """
    path = path / "predictions.csv" if path.is_dir() else path
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except FileNotFoundError as error:
        raise UserError(path, "there is no such file", _HINT) from error
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read: {error}", _HINT) from error
    subject, rule = _read_report(path.parent / "metrics.json")
    columns = [column for column in table if column.startswith(_PROBABILITY)]
    classes = tuple(column.removeprefix(_PROBABILITY) for column in columns)
    needed = ("wav_name", subject.group_column, "target", columns[0] if columns else f"{_PROBABILITY}CLASS")
    if missing := [column for column in needed if column not in table]:
        raise UserError(path, f"has no column {missing[0]}", _HINT)
    if not len(table):
        raise UserError(path, "holds no items", _HINT)
    try:
        prob = table[columns].to_numpy().astype(np.float32)
    except ValueError as error:
        raise UserError(path, f"has a probability that is no number: {error}", _HINT) from error
    run = Run(path, subject, rule, classes, table.drop(columns=columns), prob)
    if not np.isfinite(prob).all():
        raise UserError(path, "has a probability that is not finite", _HINT)
    if (run.target < 0).any():
        raise UserError(path, f"has a target that is none of the classes {', '.join(classes)}", _HINT)
    if len(set(run.names)) < len(table):
        raise UserError(path, "names an item twice", _HINT)
    return run


def _read_report(path: Path) -> tuple[Subject, str]:
    """What was classified, and by which rule, as the report beside the predictions says."""
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read: {error}", "it says what the task is: keep it beside") from error
    task = report.get("task") if isinstance(report, dict) else None
    if not isinstance(task, str):
        raise UserError(path, "does not name a task", "keep that of the predictions beside them")
    try:
        subject = resp_subject(*map(int, task.split("-"))) if re.fullmatch(r"\d-\d", task) else subject_of(task)
    except (ValueError, UserError) as error:
        raise UserError(path, f"is of the task {task!r}, which is not known here") from error
    return subject, report["decide"] if report.get("decide") in RULES else RULES[0]


def matched(base: Run, other: Run) -> Run:
    """The other run with its items in the order of the first one.

    Raises:
        UserError: they are of other items, patients, targets or classes; names the other's file.
    """
    hint = "compare runs of one task on the same items"
    if base.subject != other.subject:
        raise UserError(other.path, f"is of task {other.subject.task}, and {base.path} of {base.subject.task}", hint)
    if base.classes != other.classes:
        what = f"has the classes {', '.join(other.classes)}, and {base.path} has {', '.join(base.classes)}"
        raise UserError(other.path, what, hint)
    rows = {name: row for row, name in enumerate(other.names)}
    if rows.keys() != (names := set(base.names)):
        one = ", ".join(min(rows.keys() ^ names))
        raise UserError(other.path, f"has other items than {base.path}: {one} is in one of them alone", hint)
    order = [rows[name] for name in base.names]
    items = other.items.iloc[order].reset_index(drop=True)
    for column in ("target", base.subject.group_column):
        if (different := items[column] != base.items[column]).any():
            row = int(different.argmax())
            one, then = (", ".join(base.names[row]), base.items[column][row])
            what = f"has another {column} than {base.path}: {one} is {items[column][row]}, not {then}"
            raise UserError(other.path, what, hint)
    return replace(other, items=items, prob=other.prob[order])


def table(runs: Sequence[tuple[str, Run]], rule: str) -> str:
    """A Markdown table: the first run, and by how much each of the others is better.

    Args:
        runs: each with its name.
        rule: how classes follow from probabilities, one of `RULES`.

    Raises:
        UserError: see `matched`.
    """
    (first, base), *others = runs
    decided, scores = _decided(base, rule), _scores(base, rule)
    main, *more = [figure for figure in _FIGURES if figure in scores] or ["accuracy"]
    patient = base.items[base.subject.group_column].to_numpy()
    rows = [
        ["run", f"{_label(main)} (--decide {rule})", f"difference [95 % interval over {base.subject.groups}]"]
        + [f"{_label(figure)} (difference)" for figure in more],
        [first, _text(scores[main]), "", *(_text(scores[figure]) for figure in more)],
    ]
    for name, run in others:
        other = matched(base, run)
        found = paired_differences(
            base.target, decided, _decided(other, rule), patient, len(base.classes), base.subject.scoring
        )
        scores = _scores(other, rule)
        details = (f"{_text(scores[figure])} ({_signed(found[figure].value)})" for figure in more)
        rows.append([name, _text(scores[main]), _difference(found[main]), *details])
    header, *lines = [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *lines])


def _decided(run: Run, rule: str) -> NDArray[np.int64]:
    return decide(run.prob, rule, poor_quality=has_poor_quality(run.classes))


def _scores(run: Run, rule: str) -> dict[str, NDArray[np.float64]]:
    decided, target = torch.from_numpy(_decided(run, rule)), torch.from_numpy(run.target)
    return SCORINGS[run.subject.scoring](confusion_matrix(decided, target, len(run.classes)))


def _label(figure: str) -> str:
    return _FIGURES.get(figure, figure)


def _difference(difference: Difference) -> str:
    low, high = difference.interval or (None, None)
    return f"{_signed(difference.value)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+z.3f}"


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "n/a"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("base", metavar="BASE", type=Path, help="predictions.csv, or its folder")
    result.add_argument("others", metavar="OTHER", type=Path, nargs="+", help="what is compared with it")
    result.add_argument(
        "--decide",
        choices=RULES,
        help="the most probable class, or the most probable one that the official score counts: never Poor Quality "
        "(default: as in the report of BASE)",
    )
    result.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return result


def main(args: argparse.Namespace) -> None:
    """Read the runs and print the table."""
    runs = [(str(path), read_run(path)) for path in (args.base, *args.others)]
    print(table(runs, args.decide or runs[0][1].rule))


if __name__ == "__main__":
    sys.exit(run_script(main, parser()))
