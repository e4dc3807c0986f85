#!/usr/bin/env python3
"""Computing features of the whole SPRSound training set against baseline A, one file at a time.

    python benchmarks/preprocessing.py --runs 3

Baseline A (paper_code.py) is measured on evenly spaced recordings and events and scaled up to the whole set. Ours is
the whole set: decoding, features, writing the store to the disk. Beside it stand the floor (all audio decoded, as many
bytes written) and, of stft, one worker, the whole command from the shell, and its peak memory for few and all files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import numpy as np
import paper_code

from data_loader.audio import read_audio
from data_loader.extract import extract
from data_loader.features import methods
from data_loader.tables import Tables, build_tables
from utils.memory import keep_freed_memory

BASELINES = ("stft", "wavelet", "ast")
# The others scale alike, and `make bench` has 15 minutes.
IN_FULL = ("stft",)
SAMPLE = {1: 96, 2: 48}
CORES = os.cpu_count() or 1


def main() -> None:
    """Run all of it."""
    parser = harness.parser(__doc__, runs=3)
    parser.add_argument("--methods", default="stft,wavelet,ast,mel", help="which, of all but the wav2vec ones")
    args = parser.parse_args()
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="pywt")
    with linked(args.data_dir) as folder:
        tables = build_tables(folder)
        lines = []
        for method in args.methods.split(","):
            lines += compare(method, folder, tables, args.runs)
        lines += memory(folder)
        harness.record("preprocessing", lines, args)


@contextlib.contextmanager
def linked(data_dir: Path) -> Iterator[Path]:
    """A data folder of its own for the features, with links to the audio."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in data_dir.iterdir():
            if entry.is_dir() and not entry.name.startswith("processed_"):
                (Path(folder) / entry.name).symlink_to(entry.resolve())
        yield Path(folder)


def compare(method: str, folder: Path, tables: Tables, runs: int) -> list[harness.Measured]:
    """Baseline A, the floor and ours in turn; items/s of the whole set."""
    n_items = len(tables.of(1)) + len(tables.of(2))
    contestants: dict[str, Callable[[], float]] = {}
    if method in BASELINES:
        contestants["A"] = lambda: n_items / baseline_seconds(method, folder, tables)
    contestants["floor"] = lambda: n_items / floor_seconds(folder, tables, store_bytes(folder, method))
    contestants["ours"] = lambda: n_items / our_seconds(method, folder, tables, CORES)
    if method in IN_FULL:
        contestants["one"] = lambda: n_items / our_seconds(method, folder, tables, 1)
        contestants["command"] = lambda: n_items / command_seconds(method, folder)
    our_seconds(method, folder, tables, CORES)  # makes the store whose size the floor writes, and warms the cache
    values = harness.in_turn(contestants, runs)
    unit = "items/s"
    floor = harness.Measured(f"{method}: floor", unit, values["floor"], note="decode all audio, write as many bytes")
    base = (
        harness.Measured(
            f"{method}: A",
            unit,
            values["A"],
            note=f"one file at a time, {SAMPLE[2]} recordings and {SAMPLE[1]} events",
        )
        if "A" in values
        else floor
    )
    lines = [base] if "A" in values else []
    lines.append(harness.against(f"{method}: {CORES} workers", unit, values["ours"], base))
    if method in IN_FULL:
        lines.append(harness.against(f"{method}: 1 worker", unit, values["one"], base))
        note = "Python's start, check of all audio, tables"
        lines.append(harness.against(f"{method}: whole command", unit, values["command"], base, note))
    if base is not floor:
        lines.append(harness.against(f"{method}: floor", unit, values["floor"], base, floor.note))
    else:
        lines.append(floor)
    return lines


def baseline_seconds(method: str, folder: Path, tables: Tables) -> float:
    """What baseline A would take for the whole set."""
    seconds = 0.0
    for task, sample in SAMPLE.items():
        table = tables.of(task)
        few = table.iloc[np.linspace(0, len(table) - 1, sample).astype(int)]
        times = (few["start_ms"], few["end_ms"]) if task == 1 else ([0] * sample, [-1] * sample)
        items = [(folder / path, start, end) for path, start, end in zip(few["path"], *times, strict=True)]
        with tempfile.TemporaryDirectory() as out:
            paper_code.compute(method, *items[0])
            start = time.perf_counter()
            paper_code.preprocess(items, method, Path(out))
            seconds += (time.perf_counter() - start) / sample * len(table)
    return seconds


def our_seconds(method: str, folder: Path, tables: Tables, workers: int) -> float:
    """What the program takes for the whole set."""
    shutil.rmtree(folder / f"processed_{method}", ignore_errors=True)
    both: dict[int, Any] = {task: tables.of(task) for task in (1, 2)}
    start = time.perf_counter()
    extract(folder, methods[method], methods[method].defaults, both, tables.digests, workers=workers)
    return time.perf_counter() - start


def command_seconds(method: str, folder: Path) -> float:
    """The whole command, from the shell."""
    start = time.perf_counter()
    run_command(method, folder)
    return time.perf_counter() - start


def run_command(method: str, folder: Path, *arguments: str) -> None:
    """preprocess.py as a user calls it."""
    command = [sys.executable, "preprocess.py", "--data-dir", str(folder), "--method", method, "--force", *arguments]
    subprocess.run(command, cwd=harness.ROOT, check=True, capture_output=True)


def store_bytes(folder: Path, method: str) -> int:
    """The size of a store's shards."""
    return sum(path.stat().st_size for path in (folder / f"processed_{method}").glob("*.npy"))


def floor_seconds(folder: Path, tables: Tables, size: int) -> float:
    """Decode all audio with all cores, then write `size` bytes to the disk."""
    paths = [folder / path for path in tables.of(2)["path"]]
    block = np.ones(2**24, np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file, ThreadPoolExecutor(CORES) as pool:
        start = time.perf_counter()
        for _ in pool.map(lambda path: len(read_audio(path)[0]), paths):
            pass
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - start


def memory(folder: Path) -> list[harness.Measured]:
    """Peak memory of the whole command, for a tenth of the recordings and for all."""
    peaks = {}
    for name, arguments in (("195 recordings", ("--limit", "195")), ("1,949 recordings", ())):
        code = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        command = [
            sys.executable,
            "preprocess.py",
            "--data-dir",
            str(folder),
            "--method",
            "stft",
            "--force",
            *arguments,
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=harness.ROOT, check=True, capture_output=True, text=True
        )
        peaks[name] = int(done.stdout) / 1024
    return [harness.Measured(f"stft, peak memory, {name}", "MB", [peak]) for name, peak in peaks.items()]


if __name__ == "__main__":
    main()
