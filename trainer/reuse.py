"""``train.py --folds --reuse``: the runs of another group that are the same are taken, not trained again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base.run_files import FREE_SPACE
from logger.log import get_logger
from trainer.distillation import make_distillation
from trainer.group import Group, Part, first_difference, read_record
from trainer.part_runs import MINUTES_FILE, last_checkpoint, last_checkpoint_path, read_minutes
from trainer.setup import make_loader
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.files import write_json
from utils.strict_json import read_json

logger = get_logger(__name__)

# In what the runs of two groups may differ: none of it changes what is trained.
_MAY_DIFFER = ("name", "decide", "recording_context")


def read_source(source: Path, record: Mapping[str, Any]) -> None:
    """Check that a folder is a group whose runs may be taken.

    Args:
        record: of the group that is to take them, see `check_group`.

    Raises:
        UserError: it is none, or is of other folds, data or another split.
    """
    then = read_record(source)
    for key in ("folds", "data", "split"):
        if not isinstance(then, dict) or then.get(key) != record[key]:
            raise UserError(source, f"is of other {key} than this group", "leave --reuse out, or name another group")


def reuse_runs(source: Path, group: Group, folder: Path) -> None:
    """Copy the trained runs of `source` that are those of a group, with their minutes.

    Args:
        source: see `read_source`.
        group: what is to be trained.
        folder: of it; a run that is there already stays as it is.

    Raises:
        UserError: a run cannot be copied.
    """
    minutes, its_minutes = read_minutes(folder / MINUTES_FILE), read_minutes(source / MINUTES_FILE)
    taken = 0
    for part in group.runs:
        if (folder / part.name).exists() or not last_checkpoint_path(source, part).is_file():
            continue
        if difference := _difference(source, part):
            logger.info("%s: is not taken from %s: %s", part.name, source, difference)
            continue
        try:
            _copy(source / part.name, folder / part.name)
            if part.name in its_minutes:
                minutes[part.name] = its_minutes[part.name]
                write_json(folder / MINUTES_FILE, minutes)
        except OSError as error:
            raise UserError(folder / part.name, f"cannot be written: {error.strerror}", FREE_SPACE) from error
        taken += 1
    logger.info("%d of %d runs are taken from %s", taken, len(group.runs), source)


def _difference(source: Path, part: Part) -> str | None:
    """In what a run of another group is not the part; None where it is."""
    if last_checkpoint(source, part) is None:
        return "its checkpoint is damaged"
    try:
        config = read_json(source / part.name / "config.json")
    except (OSError, ValueError) as error:
        return f"its config.json cannot be read: {error}"
    if not isinstance(config, dict) or not isinstance(config.get("trainer"), dict):
        return "its config.json holds no config"
    then, now = ({k: v for k, v in own.items() if k not in _MAY_DIFFER} for own in (config, part.config.to_dict()))
    if difference := first_difference(_without_folders(then), _without_folders(now)):
        return f"it has another {difference}"
    if now.get("distillation"):
        loader = make_loader(part.config.changed("data_loader.args", normalize=False))
        learnt = load_checkpoint(last_checkpoint_path(source, part)).get("soft_targets")
        if learnt != make_distillation(part.config, loader).digest:
            return "it has another teacher"
    return None


def _without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {key: value for key, value in config["trainer"].items() if key != "save_dir"}
    return {**config, "trainer": trainer}


def _copy(source: Path, target: Path) -> None:
    """A whole folder, or none of it."""
    aside = target.with_name(f".{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    aside.rename(target)
