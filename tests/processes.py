"""Scripts in processes of their own: what tests of signals and of torchrun share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.killed import Fork
from tests.tiny import ROOT, run

# train.py, which knows the tiny network.
SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import tests.tiny, train
from utils.cli import run_script
sys.exit(run_script(train.main, train.parser()))
"""


def two_processes(script: Path | str, *argv: object) -> subprocess.CompletedProcess[str]:
    """A finished run of a script by torchrun with two processes, each on one core."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    return subprocess.run(
        [*command, *map(str, argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def train_with_two(folder: Path, *argv: object, script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    """Train with two processes; the script's text is put into the folder."""
    path = folder / "script.py"
    path.write_text(script)
    return two_processes(path, *argv)


def trained_with_two(folder: Path, *argv: object) -> None:
    """A run of train.py by two processes, which has to succeed."""
    statuses, printed = two_forks(folder, "train", *argv)
    assert statuses == [0, 0], printed[-3000:]


def two_forks(folder: Path, script: str, *argv: object) -> tuple[list[int], str]:
    """A run of a script by two processes that are told of each other as torchrun tells them.

    They are forks: nothing is imported anew, which is most of the time of `two_processes`.

    Returns:
        their exit statuses and what both printed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    outputs = [folder / f"rank{rank}.txt" for rank in range(2)]
    words = [script, *map(str, argv)]
    forks = [Fork(_run_as, str(rank), port, words, output=output) for rank, output in enumerate(outputs)]
    statuses = [fork.end() for fork in forks]
    return statuses, "".join(output.read_text(errors="replace") for output in outputs)


def _run_as(rank: str, port: str, words: list[str], tell: object) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    sys.exit(run(*words))
