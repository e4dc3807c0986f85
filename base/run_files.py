"""The files of a run: its checkpoints, and ``<save_dir>/model_best.pth``, which is of the newest run."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

from logger.log import get_logger
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import atomic_link, atomic_write_text, remove_leftovers
from utils.strict_json import read_json

logger = get_logger(__name__)

# What the folder of a run holds before its first checkpoint.
_OF_A_BEGUN_RUN = {"config.json", "environment.json", "train.log"}
FREE_SPACE = "free some space, or take another trainer.save_dir"


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run's whole epochs with these, the newest last."""
    return [(epoch, path) for epoch, step, path in _in_order(folder) if step == math.inf]


def places_of(folder: Path, before: tuple[float, float]) -> list[Path]:
    """A run's checkpoints from the midst of an epoch that are earlier than (epoch, step)."""
    return [path for epoch, step, path in _in_order(folder) if step < math.inf and (epoch, step) < before]


def later_than(folder: Path, place: tuple[float, float]) -> list[Path]:
    """A run's checkpoints that are later than (epoch, step), the newest first; a whole epoch has infinite steps."""
    return [path for epoch, step, path in reversed(_in_order(folder)) if (epoch, step) > place]


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of the newest run that has one; None where there is none.

    Runs are ordered by when they began, as they noted it, checkpoints of a run by epoch and step; when a file was
    written plays no part, since copying changes that. A damaged one is passed over with a warning.

    Args:
        folder: of all runs of a config, ``<save_dir>/models/<name>/``.
    """
    return next((path for run in runs_of(folder) if (path := newest_of_run(run))), None)


def runs_of(folder: Path) -> list[Path]:
    """The folders of all runs of a config, the newest first."""
    runs = [path for path in folder.glob("*") if path.is_dir()]
    return sorted(runs, key=lambda path: (_began(path), _natural(path.name)), reverse=True)


def newest_of_run(run: Path) -> Path | None:
    """The newest whole checkpoint of a run; None where it has none. A damaged one is passed over with a warning."""
    for _, _, path in reversed(_in_order(run)):
        try:
            load_checkpoint(path)
        except UserError as error:
            logger.warning("%s: passed over", error)
        else:
            return path
    return None


def remove_begun(run: Path, log_dir: Path) -> None:
    """Remove what a run left that was killed before its first checkpoint: the same command then begins it anew.

    Args:
        run: its folder.
        log_dir: of its TensorBoard log.

    Raises:
        UserError: the folder holds anything else, as damaged checkpoints or figures; all of it stays.
    """
    remove_leftovers(run)
    # Several processes of one run may do this at once; where the folder is gone, this finds nothing.
    if {path.name for path in run.glob("*")} - _OF_A_BEGUN_RUN:
        raise UserError(run, "has no checkpoint to go on from", "remove it, or take another --run_id")
    for folder in (run, log_dir):
        shutil.rmtree(folder, ignore_errors=True)
    logger.info("%s ended before its first checkpoint: it begins anew", run)


def _began(run: Path) -> str:
    """When a run began, in a form that sorts; "" where it is not noted."""
    try:
        began = read_json(run / "environment.json")["began"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return began if isinstance(began, str) else ""


def _in_order(folder: Path) -> list[tuple[int, float, Path]]:
    """Epoch, step and path of a run's checkpoints; one of a whole epoch comes after those from its midst."""
    name = re.compile(r"checkpoint-epoch(\d+)(?:-step(\d+))?\.pth")
    found = [(name.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.pth")]
    return sorted((int(match[1]), int(match[2]) if match[2] else math.inf, path) for match, path in found if match)


def _natural(name: str) -> list[tuple[int, str]]:
    """For sorting: numbers in a name by their value, so that ``1121_131345_10`` comes after ``1121_131345_9``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", name)]


def announce_run(config: ConfigParser) -> None:
    """Note that this run is the newest below its save_dir: `model_best.pth` there is its own from now on.

    What killed runs were writing goes. Of a group of runs, the group is the newest, and not its parts.
    """
    if config.is_part:
        remove_leftovers(config.save_dir)
        return
    for folder in (config.save_root, config.save_dir):
        remove_leftovers(folder)
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
        atomic_link(path, save_root / "model_best.pth")
    except OSError as error:
        raise UserError(save_root / "model_best.pth", f"cannot be written: {error.strerror}", FREE_SPACE) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise UserError(path, f"cannot be written: {error.strerror}", FREE_SPACE) from error
