#!/usr/bin/env python3
"""The tables of docs/results.md, from the reports that test.py and train.py --folds wrote.

    python benchmarks/results_table.py saved/models/*/results/valid/metrics.json
    python benchmarks/results_table.py saved/models/*/results/oof/metrics.json

Each report is one row; the training time of one run is that of its log, first line to last. Reports of --folds are a
table of their own, with a row for each member of an ensemble, too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from pathlib import Path
from typing import Any

from harness import cell

NUMBERS = ("sensitivity", "specificity", "average_score", "harmonic_score", "score")
HEADER = (
    "| task | model | features | SE | SP | AS | HS | Score [95 % interval] | epochs | minutes |\n" + "|---" * 10 + "|"
)
OUT_OF_FOLD = (
    "| task | run | networks | parameters | Score out of fold [95 % interval] | mean and deviation of folds "
    "| with --decide score | worst subgroup | minutes of training |\n" + "|---" * 9 + "|"
)


def training_minutes(log: Path) -> float:
    """Minutes between the first and the last line of a run's train.log."""
    stamps = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", log.read_text(encoding="utf-8"), flags=re.MULTILINE)
    first, last = (datetime.datetime.fromisoformat(stamp) for stamp in (stamps[0], stamps[-1]))
    return (last - first).total_seconds() / 60


def row(report: dict[str, Any], run: Path) -> str:
    """One line of the table."""
    config = report["config"]
    args = config["arch"].get("args", {})
    model = config["arch"]["type"] + (f" {args['model_size']}" if "model_size" in args else "") + _decision(report)
    features = (config["data_loader"]["args"].get("input_dir") or "").removeprefix("processed_")
    low, high = report["ci95"].get("score") or (None, None)
    # Other data sets have fewer of them.
    values = [_text(report.get(name)) for name in NUMBERS]
    values[-1] = f"**{values[-1]}** [{_text(low)}, {_text(high)}]"
    log = run / "train.log"
    cells = [
        report["task"],
        model,
        features,
        *values,
        str(report["epoch"]),
        # A report may lie elsewhere than its run.
        f"{training_minutes(log):.0f}" if log.is_file() else _text(None),
    ]
    return f"| {' | '.join(map(cell, cells))} |"


def out_of_fold_rows(report: dict[str, Any], name: str) -> list[str]:
    """The lines of a group of runs: all together, and each member of several.

    Args:
        name: of the group.
    """
    low, high = report["ci95"].get("score") or (None, None)
    decided = report["decisions"].get("score", {}).get("score")
    worst = report.get("worst_subgroup")
    runs = len(report["minutes"])
    # What `--teacher` writes is one network.
    networks = 1 if "teacher" in report else runs
    rows = [[
        report["task"], name + _decision(report), networks, f"{report['parameters']:,}",
        f"**{_text(report.get('score'))}** [{_text(low)}, {_text(high)}]", _spread(report), _text(decided),
        f"{_text(worst['score'])} {worst['name']}" if worst else "", f"{report['minutes_together']:.0f}",
    ]]  # fmt: skip
    members = report["members"] if len(report["members"]) > 1 else {}
    for member, own in members.items():
        its = [minutes for part, minutes in report["minutes"].items() if part.startswith(f"{member}-seed")]
        parameters = f"{own['parameters'] * len(its):,}"
        score, spread = _text(own.get("score")), _spread(own)
        rows.append([report["task"], member, len(its), parameters, score, spread, "", "", f"{sum(its):.0f}"])
    return [f"| {' | '.join(map(cell, cells))} |" for cells in rows]


def _decision(report: dict[str, Any]) -> str:
    """How the classes were decided, where it was not by the greatest probability of each item by itself."""
    rule = report.get("decide", "argmax")
    decided = "" if rule == "argmax" else f", decided by {rule}"
    return decided + (", in context" if "each_event_alone" in report else "")


def _folds(report: dict[str, Any]) -> str:
    """What the folds of a group are of, if not of any patients."""
    args = [config["data_loader"].get("args", {}) for config in report["config"].values()]
    split_by = args[0].get("split_by", "patient")
    return "" if split_by == "patient" else f", folds by {split_by}"


def _spread(scores: dict[str, Any]) -> str:
    return f"{_text(scores.get('score_mean'))}, {_text(scores.get('score_std'))}"


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def main() -> None:
    """Read the reports and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="metrics.json files, below their runs' folders")
    args = parser.parse_args()
    single, folded = [], []
    for path in args.reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        if "members" in report:
            folded += out_of_fold_rows(report, path.parents[2].name + _folds(report))
        else:
            single.append(row(report, path.parents[1]))
    tables = [
        f"{header}\n" + "\n".join(rows) for header, rows in ((HEADER, sorted(single)), (OUT_OF_FOLD, folded)) if rows
    ]
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
