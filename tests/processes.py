"""Scripts in processes of their own: what tests of signals and of torchrun share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import ROOT

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


def trained_with_two(folder: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    """`train_with_two` of a run that has to succeed."""
    done = train_with_two(folder, *argv)
    assert done.returncode == 0, done.stderr[-3000:]
    return done
