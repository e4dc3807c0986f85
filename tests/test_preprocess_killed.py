"""preprocess.py killed or stopped at any moment: what it goes on to write is what an undisturbed run writes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import preprocess
from tests.killed import Fork, die_at_change
from tests.test_preprocess import put
from utils.cli import run_script

ROOT = Path(preprocess.__file__).parent
KILLS = 16
COMMAND = ("--method", "mel", "--mel-duration", "0.2", "--workers", "2")
# What a run finds: the options of the run before it, and its own.
CASES = {
    "a new store": (None, ()),
    "a task added to a store": (("--tasks", "1"), ()),
    "a store made anew": (("--mel-n-mels", "32"), ("--force",)),
}
TABLES = ("task1.csv", "task2.csv", "task2_filtered.csv")


def child(folder: Path, arguments: tuple[str, ...], at: int | None, tell) -> None:
    """Run preprocess.py in this process and kill it at its `at`-th change to files."""
    from data_loader import jobs

    jobs.SHARD_ITEMS = 3
    count = die_at_change(folder, at)
    status = run_script(preprocess.main, preprocess.parser(), ["--data-dir", str(folder), *COMMAND, *arguments])
    tell(count())
    sys.exit(status)


def run(folder: Path, *arguments: str, at: int | None = None) -> int | None:
    """Run preprocess.py in a fork of a process that has imported everything; its changes, or None if it was killed."""
    fork = Fork(child, folder, arguments, at, output=folder.parent / "output.txt")
    return None if fork.was_killed() else fork.told()


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder; a folder counts too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_again_and_again_writes_what_an_undisturbed_one_writes(tmp_path, case):
    before, arguments = CASES[case]
    start, folder = tmp_path / "start", tmp_path / "data"
    for number in range(6):
        put(start, f"{number}_1.0_0_p1_{number}", rate=2000)
    if before is not None:
        run(start, *before)
    shutil.copytree(start, folder)
    changes = run(folder, *arguments)
    undisturbed = tree(folder)
    stores = [tree(path / "processed_mel") for path in (start, folder)]
    assert len(stores[1]) > 7  # shards of both tasks, index.csv, index.npy, meta.json

    assert {path.name for path in folder.iterdir()} == {"wav", "json", "processed_mel", *TABLES}

    rng = random.Random(case)
    moments: list[int] = []
    killed = 0
    while True:
        moments = moments or rng.sample(range(1, changes + 1), changes)
        at = moments.pop() if killed < KILLS else None
        if run(folder, *arguments, at=at) is None:
            killed += 1
            # At any moment there is a whole store or none.
            assert tree(folder / "processed_mel") in [*stores, {}]
            continue
        assert tree(folder) == undisturbed
        if at is None:
            break
        shutil.rmtree(folder)
        shutil.copytree(start, folder)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_and_its_workers(tmp_path, tiny_data, signum):
    data_dir = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    command = [sys.executable, str(ROOT / "preprocess.py"), "--data-dir", str(data_dir), "--method", "ast_wav2vec"]
    process = subprocess.Popen(
        [*command, "--weights", "random", "--workers", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # The bar is shown just before the workers are started.
    shown = ""
    while "ast_wav2vec:" not in shown:
        shown += process.stderr.read(1) or pytest.fail(f"ended before it computed: {shown}")
    os.killpg(process.pid, signum) if signum == signal.SIGINT else process.send_signal(signum)
    # Returns when nobody holds the pipes any more, and the workers inherit them.
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "Traceback" not in err
    assert "the same command goes on" in err
    assert not (data_dir / "processed_ast_wav2vec").exists()
