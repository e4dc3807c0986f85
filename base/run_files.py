"""The files of a run: its checkpoints, and ``<save_dir>/model_best.pth``, which is of the newest run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import atomic_path, atomic_write_text


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run with their epochs, the newest last."""
    found = [
        (re.fullmatch(r"checkpoint-epoch(\d+)\.pth", path.name), path) for path in folder.glob("checkpoint-*.pth")
    ]
    return sorted((int(match[1]), path) for match, path in found if match)


def announce_run(config: ConfigParser) -> None:
    """Note that this run is the newest below its save_dir: `model_best.pth` there is its own from now on."""
    write_text(config.save_root / "newest_run.txt", f"{config.save_dir}\n")
    best = config.save_dir / "model_best.pth"
    if best.is_file():
        # A run that goes on has one already.
        publish(best, config.save_root)


def publish(path: Path, save_root: Path) -> None:
    """Have ``<save_root>/model_best.pth`` be this checkpoint, if its run is the newest."""
    newest = save_root / "newest_run.txt"
    if newest.is_file() and newest.read_text(encoding="utf-8", errors="surrogateescape").strip() != str(path.parent):
        return
    try:
        with atomic_path(save_root / "model_best.pth") as aside:
            try:
                os.link(path, aside)
            except OSError:
                # A file system without hard links.
                shutil.copyfile(path, aside)
    except OSError as error:
        raise UserError(save_root / "model_best.pth", f"cannot be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise UserError(path, f"cannot be written: {error.strerror}", "free some space") from error
