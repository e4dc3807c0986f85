"""``train.py --folds --reuse``: the runs of another group that are the same are taken, not trained again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base.run_files import FREE_SPACE
from logger.log import get_logger
from trainer.building import make_loader
from trainer.difference import first_difference, input_difference, with_defaults
from trainer.distillation import make_distillation
from trainer.group import Group, Part, read_record
from trainer.part_runs import MINUTES_FILE, last_checkpoint, last_checkpoint_path, read_minutes
from trainer.starting import start_path
from utils.arguments import matches
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import file_digest, write_json

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


def reuse_runs(source: Path, group: Group, folder: Path, own_input: Mapping[str, Any]) -> None:
    """Copy the trained runs of `source` that are those of a group, with their minutes.

    Args:
        source: see `read_source`.
        group: what is to be trained.
        folder: of it; a run that is there already stays as it is.
        own_input: of its networks, see `input_difference`.

    Raises:
        UserError: a run cannot be copied.
    """
    minutes, its_minutes = read_minutes(folder / MINUTES_FILE), read_minutes(source / MINUTES_FILE)
    taken = 0
    for part in group.runs:
        if (folder / part.name).exists() or not last_checkpoint_path(source, part).is_file():
            continue
        if difference := _difference(source, part, own_input):
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


def _difference(source: Path, part: Part, own_input: Mapping[str, Any]) -> str | None:
    """In what a run of another group is not the part; None where it is."""
    if (path := last_checkpoint(source, part)) is None:
        return "its checkpoint is damaged"
    checkpoint = load_checkpoint(path)
    try:
        # Not its config.json: that is written when a run goes on, also where nothing is left to train.
        its_config = ConfigParser(checkpoint["config"])
    except UserError as error:
        return f"its config does not fit this program: {error}"
    if difference := first_difference(_that_trains(its_config), _that_trains(part.config)):
        return f"it has another {difference}"
    if difference := input_difference(checkpoint["input"], own_input):
        return f"it has another {difference}"
    if (start := start_path(part.config)) and file_digest(start) != _begun_from(checkpoint):
        return f"it began from another {start}"
    if part.config.get("distillation"):
        loader = make_loader(part.config.changed("data_loader.args", normalize=False))
        if checkpoint.get("soft_targets") != make_distillation(part.config, loader).digest:
            return "it has another teacher"
    return None


def _begun_from(checkpoint: Mapping[str, Any]) -> str | None:
    """The sha256 of the checkpoint that its training began from."""
    origins = checkpoint.get("origins")
    start = origins[0].get("start_from") if matches(origins, list[dict[str, Any]]) and origins else None
    return start["sha256"] if matches(start, dict[str, str]) and "sha256" in start else None


def _that_trains(config: ConfigParser) -> dict[str, Any]:
    """What of a config changes what is trained."""
    whole = with_defaults({key: value for key, value in config.to_dict().items() if key not in _MAY_DIFFER})
    return {**whole, "trainer": {key: value for key, value in whole["trainer"].items() if key != "save_dir"}}


def _copy(source: Path, target: Path) -> None:
    """A whole folder, or none of it."""
    aside = target.with_name(f".{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside)
    aside.rename(target)
