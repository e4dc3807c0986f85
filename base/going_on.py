"""The folder of a run that goes on from a checkpoint: what is there of another training is put aside."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from base.run_files import FREE_SPACE, later_than
from logger.log import get_logger
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.files import atomic_link

logger = get_logger(__name__)

BEST = "model_best.pth"


class Past(NamedTuple):
    """What a run that goes on has behind it.

    Attributes:
        path: the checkpoint that it goes on from.
        place: where that is: epoch and step, see `later_than`.
        history: the figures of its epochs.
        best: the number of the best one; None where none is, or another figure is monitored now.
        config: with which it goes on.
    """

    path: Path
    place: tuple[float, float]
    history: list[dict[str, float]]
    best: int | None
    config: dict[str, Any]


def go_on_in(folder: Path, past: Past) -> bool:
    """Leave in a run's folder what is of the training that goes on there, with the best of it.

    Later checkpoints, and a best one that is not of this past, go into a folder of their own: nothing is lost, and
    nothing takes them for checkpoints of the run. Killed in the midst of it, this can be done again.

    Args:
        folder: that of the checkpoint, or of a new run.

    Returns:
        Whether the best of the past is there; so it is where there has been none.

    Raises:
        UserError: something cannot be moved or written.
    """
    later = [path for path in later_than(folder, past.place) if path != past.path]
    best, stays = folder / BEST, False
    if best.is_file():
        saved = _read(best)
        stays = _is_best(saved, past) or (not later and _comes_again(saved, past))
        if not stays:
            # After the checkpoints: while one of those is there, this one may be of its past.
            later.append(best)
    if later:
        _put_aside(folder, later)
    return stays or past.best is None or _fetch_best(best, past)


def has_best(folder: Path, past: Past) -> bool:
    """Whether the best checkpoint in a run's folder is that of a past."""
    return (folder / BEST).is_file() and _is_best(_read(folder / BEST), past)


def _fetch_best(best: Path, past: Past) -> bool:
    """Have the best checkpoint of a past under a name; whether there still is one."""
    source = past.path.parent
    for path in (source / BEST, past.path, source / f"checkpoint-epoch{past.best}.pth"):
        if path.is_file() and _is_best(_read(path), past):
            logger.info("the best so far, of epoch %d, is taken from %s", past.best, path)
            try:
                atomic_link(path, best)
            except OSError as error:
                raise UserError(best, f"cannot be written: {error.strerror}", FREE_SPACE) from error
            return True
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint from the end of an epoch; None where it is none."""
    try:
        saved = load_checkpoint(path)
    except UserError as error:
        logger.warning("%s: passed over", error)
        return None
    return None if saved.get("place") is not None else saved


def _is_best(saved: Mapping[str, Any] | None, past: Past) -> bool:
    """Whether a checkpoint is that of the best epoch of a past."""
    if saved is None or past.best is None:
        return False
    return saved["epoch"] == past.best and saved.get("history") == past.history[: past.best]


def _comes_again(saved: Mapping[str, Any] | None, past: Past) -> bool:
    """Whether a best checkpoint is of an epoch that the run comes to once more, and then writes anew, the same.

    So it is where the run was killed between that and the next checkpoint.
    """
    if saved is None or saved["epoch"] <= len(past.history) or not isinstance(saved.get("history"), list):
        return False
    same = saved["history"][: len(past.history)] == past.history
    return same and _training(saved["config"]) == _training(past.config)


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what changes no bit of a training."""
    config = copy.deepcopy(dict(config))
    with contextlib.suppress(LookupError, TypeError, AttributeError):
        del config["data_loader"]["args"]["num_workers"]
    return config


def _put_aside(folder: Path, paths: Sequence[Path]) -> None:
    """Move files of a folder into a new one in it, one after the other."""
    try:
        aside = _new_folder(folder)
        for path in paths:
            path.rename(aside / path.name)
    except OSError as error:
        raise UserError(error.filename or folder, f"cannot be moved: {error.strerror}", FREE_SPACE) from error
    names = ", ".join(path.name for path in paths)
    logger.info("what is not of the training that goes on here is put aside in %s: %s", aside, names)


def _new_folder(folder: Path) -> Path:
    """``abandoned-N``, with the first number that is not taken."""
    for number in count(1):
        aside = folder / f"abandoned-{number}"
        try:
            aside.mkdir()
        except FileExistsError:
            # A run that was killed here may have left it empty.
            if not aside.is_dir() or any(aside.iterdir()):
                continue
        return aside
    raise AssertionError
