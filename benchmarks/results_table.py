#!/usr/bin/env python3
"""The table of docs/results.md, from the reports that test.py wrote.

    python benchmarks/results_table.py saved/models/*/results/valid/metrics.json

Each report is one row; the training time is that of the run's log, first line to last.
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


def training_minutes(log: Path) -> float:
    """Minutes between the first and the last line of a run's train.log."""
    stamps = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", log.read_text(encoding="utf-8"), flags=re.MULTILINE)
    first, last = (datetime.datetime.fromisoformat(stamp) for stamp in (stamps[0], stamps[-1]))
    return (last - first).total_seconds() / 60


def row(report: dict[str, Any], run: Path) -> str:
    """One line of the table."""
    config = report["config"]
    args = config["arch"].get("args", {})
    model = config["arch"]["type"] + (f" {args['model_size']}" if "model_size" in args else "")
    features = (config["data_loader"]["args"]["input_dir"] or "").removeprefix("processed_")
    low, high = report["ci95"]["score"]
    values = [f"{report[name]:.3f}" for name in NUMBERS]
    values[-1] = f"**{values[-1]}** [{low:.3f}, {high:.3f}]"
    cells = [
        report["task"],
        model,
        features,
        *values,
        str(report["epoch"]),
        f"{training_minutes(run / 'train.log'):.0f}",
    ]
    return f"| {' | '.join(map(cell, cells))} |"


def main() -> None:
    """Read the reports and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="metrics.json files, below their runs' folders")
    args = parser.parse_args()
    print(HEADER)
    rows = [row(json.loads(path.read_text(encoding="utf-8")), path.parents[1]) for path in args.reports]
    print("\n".join(sorted(rows)))


if __name__ == "__main__":
    main()
