"""What the benchmarks share: runs taken in turn, ratios to a named baseline, and the record of them.

The machines are noisy and differ, so a figure counts only as a ratio to a baseline measured in the same run. The
contestants are run in turn, not one after the other, so that a slow minute hits all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.files import atomic_write_text, write_json  # noqa: E402
from utils.versions import git_commit, library_versions  # noqa: E402


@dataclass(frozen=True)
class Measured:
    """One line of a benchmark.

    Attributes:
        name: what was run.
        unit: of the values: "recordings/s", "ms", ...
        values: one a run.
        baseline: name of the line that `ratios` refer to; None for a baseline and for a figure without one.
        ratios: value over the baseline's value of the same turn, so that more is better for speeds; one a run.
        note: what a reader should know of it.
    """

    name: str
    unit: str
    values: Sequence[float]
    baseline: str | None = None
    ratios: Sequence[float] = field(default_factory=tuple)
    note: str = ""


def in_turn(contestants: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Run every contestant `runs` times, in turn; each returns its figure.

    >>> in_turn({"a": lambda: 1.0, "b": lambda: 2.0}, 2)
    {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(runs):
        for name, run in contestants.items():
            values[name].append(run())
            print(f"  run {turn + 1} of {runs}: {name}: {values[name][-1]:,.4g}", file=sys.stderr, flush=True)
    return values


def against(name: str, unit: str, values: Sequence[float], baseline: Measured, note: str = "") -> Measured:
    """A line with its ratios to a baseline measured in the same turns.

    >>> against("ours", "items/s", [30.0, 50.0], Measured("base", "items/s", [10.0, 10.0])).ratios
    [3.0, 5.0]
    """
    ratios = [value / base for value, base in zip(values, baseline.values, strict=True)]
    return Measured(name, unit, values, baseline.name, ratios, note)


def parser(doc: str | None, runs: int) -> argparse.ArgumentParser:
    """The command line that all benchmarks have."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--runs", type=int, default=runs, metavar="N", help=f"turns (default: {runs})")
    result.add_argument(
        "--out", type=Path, default=ROOT / "saved/benchmarks", metavar="DIR", help="for JSON and Markdown"
    )
    result.add_argument("--data-dir", type=Path, default=ROOT / "data/SPRSound", metavar="DIR", help="SPRSound")
    return result


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    import torch

    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "libraries": library_versions(("torch", "torchaudio", "numpy", "scipy", "soundfile")),
        "commit": git_commit(),
        "load": os.getloadavg()[0],
    }


def _lines(path: str) -> Iterable[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()


def table(lines: Iterable[Measured]) -> str:
    """A Markdown table: median (min to max) of the values and of the ratios.

    >>> print(table([Measured("base", "items/s", [10.0, 12.0, 11.0])]))
    | what | unit | median (min to max) | ratio | note |
    |---|---|---|---|---|
    | base | items/s | 11 (10 to 12) |  |  |
    """
    rows = ["| what | unit | median (min to max) | ratio | note |", "|---|---|---|---|---|"]
    for line in lines:
        ratio = f"**{_spread(line.ratios)}** x {cell(line.baseline)}" if line.ratios else ""
        rows.append(f"| {cell(line.name)} | {line.unit} | {_spread(line.values)} | {ratio} | {cell(line.note)} |")
    return "\n".join(rows)


def cell(text: object) -> str:
    """Text as a cell of a Markdown table shows it, whatever a config or a file's name holds.

    >>> cell("a|b <i>")
    'a\\\\|b &lt;i>'
    """
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _spread(values: Sequence[float]) -> str:
    few = f"{statistics.median(values):,.3g}"
    return f"{few} ({min(values):,.3g} to {max(values):,.3g})" if len(values) > 1 else few


def record(name: str, lines: Sequence[Measured], args: argparse.Namespace, **more: Any) -> None:
    """Print the table and write ``<out>/<name>.json`` and ``.md``."""
    where = machine()
    libraries = ", ".join(f"{library} {version}" for library, version in where["libraries"].items())
    place = f"{where['cpu']}, {where['cores']} cores, {where['gpu'] or 'no GPU'}"
    text = f"{table(lines)}\n\n{place}; commit {where['commit']}; {libraries}."
    print(f"\n## {name}\n\n{text}\n", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "command": sys.argv, "machine": where, "lines": [asdict(line) for line in lines], **more}
    write_json(args.out / f"{name}.json", content)
    atomic_write_text(args.out / f"{name}.md", f"## {name}\n\n{text}\n")
