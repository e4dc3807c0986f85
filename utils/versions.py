"""What a result was made with: library versions, the commit, the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "torchaudio", "torchvision", "timm", "transformers", "numpy", "scipy", "pandas", "scikit-learn")
LIBRARIES += ("PyWavelets", "soundfile")


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of installed libraries; those not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of this code, with ``+changes`` where the tree differs from it; None outside a git checkout.

    A Python file that git does not know is a difference too: a model may be in it.
    """
    try:
        # A copy of the code without its history may lie in another project's checkout.
        _git("ls-files", "--error-unmatch", "utils/versions.py")
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return f"{commit}+changes" if changed or _git("ls-files", "-o", "--exclude-standard", "*.py") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    # `git status` would lock the index to refresh it, and a run that is killed then would leave the lock behind: the
    # user's next commit would fail.
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def command_line() -> str:
    """The command that runs now, as a shell takes it back."""
    return shlex.join(["python", *sys.argv])


def environment() -> dict[str, Any]:
    """Commit, Python, libraries and machine, as they go into a run folder and a report."""
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": library_versions(),
    }
