"""What ``--folds`` trains: members, each for all seeds and folds, as one group of runs."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from base.base_data_loader import BaseDataLoader
from data_loader import data_loaders
from data_loader.sound_data_loader import SoundDataLoader
from data_loader.splits import has_test_part
from logger.log import get_logger
from trainer.building import make_loader
from trainer.check import check_config
from trainer.difference import first_difference, input_difference, input_of, with_defaults
from trainer.section_check import check_loader
from trainer.starting import check_begin, start_path
from utils.arguments import matches
from utils.config import GROUP_FILE, ConfigParser, read_config
from utils.errors import UserError
from utils.schema import ENSEMBLE_SCHEMA, check_schema
from utils.strict_json import read_json

logger = get_logger(__name__)

# What groups of earlier versions do not tell of. It is compared last: another config says more.
_LATER = ("input", "soft_targets")


@dataclass(frozen=True)
class Part:
    """One run of a group.

    Attributes:
        name: of its folder.
        member: the name of the member's config.
        fold: that it is validated on; None where it is trained on all items.
        config: of the run, whole.
    """

    name: str
    member: str
    seed: int
    fold: int | None
    config: ConfigParser

    @property
    def epochs(self) -> int:
        return self.config["trainer"]["epochs"]


@dataclass(frozen=True)
class Group:
    """All runs of one ``--folds``.

    Attributes:
        name: of the group, and of the folder that its runs of different days are in.
        members: configs by name.
        parts: in the order of members, seeds and folds.
        level: 1 where members of level 2 are scored and published as one of level 1; None: at their own.
        final: one more run on all items, where one network is to be published in place of all together.
    """

    name: str
    members: dict[str, ConfigParser]
    folds: int
    seeds: list[int]
    parts: list[Part]
    level: int | None = None
    final: Part | None = None

    @property
    def runs(self) -> list[Part]:
        """All that is trained."""
        return [*self.parts, self.final] if self.final else self.parts

    @property
    def first(self) -> ConfigParser:
        """The config of the first member."""
        return next(iter(self.members.values()))

    @property
    def save_root(self) -> Path:
        return self.first.save_root


def read_group(args: Namespace) -> Group:
    """The group that the command line asks for.

    Args:
        args: of train.py: `config`, `folds`, `seeds`, and what changes configs.

    Raises:
        UserError: a config cannot be read, or two members have one name.
    """
    name, members, level = _read_members(args)
    by_name: dict[str, ConfigParser] = {}
    for member in members:
        if member["name"] in by_name:
            raise UserError("ensemble", f"two members are called {member['name']}", "give each config its own name")
        by_name[member["name"]] = member
    seeds = [members[0].seed + number for number in range(args.seeds or 1)]
    return replace(make_group(name, by_name, args.folds, seeds), level=level)


def make_group(name: str, members: dict[str, ConfigParser], folds: int, seeds: list[int]) -> Group:
    """The group of some members, by the names of their configs, for all seeds and folds."""
    first = next(iter(members.values()))
    parts = [
        Part(f"{member}-seed{seed}-fold{fold}", member, seed, fold, config)
        for member, own in members.items()
        for seed in seeds
        for fold in range(folds)
        for config in [_part_config(own, first, name, seed, {"folds": folds, "fold": fold})]
    ]
    return Group(name, members, folds, seeds, parts)


def _read_members(args: Namespace) -> tuple[str, list[ConfigParser], int | None]:
    given = Namespace(**{**vars(args), "resume": None, "run_id": None})
    content = read_config(Path(args.config)) if args.config is not None else {}
    if "ensemble" not in content:
        config = ConfigParser.from_args(given)
        return config["name"], [config], None
    check_schema(content, ENSEMBLE_SCHEMA)
    if others := sorted(content.keys() - {"name", "ensemble", "level"}):
        logger.warning("%s: %s: not used, the configs of its ensemble have their own", args.config, ", ".join(others))
    members = []
    for file in content["ensemble"]:
        given.config = Path(args.config).parent / file
        with _said_of(given.config):
            if "ensemble" in read_config(given.config):
                raise UserError("ensemble", "is in a config that is named by an ensemble", "name its configs instead")
            members.append(ConfigParser.from_args(given))
    return content["name"], members, content.get("level")


@contextlib.contextmanager
def _said_of(file: Path | str) -> Iterator[None]:
    """Have an error in one of several configs name it."""
    try:
        yield
    except UserError as error:
        if error.subject.startswith(str(file)):
            raise
        raise UserError(f"{file}: {error.subject}", error.what, error.hint) from error


def _part_config(
    member: ConfigParser, first: ConfigParser, name: str, seed: int, split: dict[str, int]
) -> ConfigParser:
    """A member's config for one fold. It is scored at its last epoch: nothing is chosen on the fold."""
    config = member.to_dict() | {"name": name, "seed": seed}
    loader = config["data_loader"]
    # The split is the same for all seeds.
    loader["args"] = {"seed": member.seed, **loader.get("args", {}), "validation_split": split}
    config["trainer"] |= {"save_dir": str(first.save_root), "monitor": "off", "early_stop": None, "keep_last": 1}
    return ConfigParser(config)


def check_group(group: Group) -> tuple[dict[str, Any], BaseDataLoader]:
    """Check all members before anything is trained: each by itself, and that they can be one.

    Returns:
        What a group that goes on has to have in common with how it was begun, as plain values; and the first member's
        loader of the first fold.

    Raises:
        UserError: a config is wrong, or the members differ in task, classes, items, split or input.
    """
    loaders: dict[str, BaseDataLoader] = {}
    for name, member in group.members.items():
        part = next(part for part in group.parts if part.member == name)
        with _said_of(name) if len(group.members) > 1 else contextlib.nullcontext():
            _refuse_unfit(member)
            check_config(part.config)
            _refuse_other_level(group, member)
            loaders[name] = make_loader(part.config.changed("data_loader.args", **_not_normalized(part.config)))
            check_begin(part.config, loaders[name])
            # Each fold may begin from a file of its own.
            for run in group.runs:
                if run.member == name:
                    start_path(run.config)
    first_name, first = next(iter(loaders.items()))
    decided = {name: with_defaults(member.to_dict()) for name, member in group.members.items()}
    for name, loader in loaders.items():
        if difference := _difference(first, loader):
            raise UserError(f"{name}: {difference[0]}", f"is not that of {first_name}", difference[1])
        for key in ("decide", "recording_context"):
            if decided[name][key] != decided[first_name][key]:
                raise UserError(f"{name}: {key}", f"is not that of {first_name}", "give all members the same")
    fingerprint = first.dataset.fingerprint()
    splits = sorted(set(first.dataset.table["split"]) & fingerprint.keys())
    record = {
        "folds": group.folds,
        "seeds": group.seeds,
        "level": group.level,
        "members": {name: member.to_dict() for name, member in group.members.items()},
        # What is not loaded may change: a test set may be released meanwhile.
        "data": {split: fingerprint[split] for split in splits},
        "split": first.split_digest(),
        "input": {key: value for key, value in first.input_spec.to_dict().items() if key not in ("mean", "std")},
    }
    return record, first


def _refuse_unfit(member: ConfigParser) -> None:
    name = member["data_loader"]["type"]
    if not issubclass(data_loaders.lookup(name, "data_loader.type"), SoundDataLoader):
        raise UserError("data_loader.type", f"is {name}, which has no folds", "leave --folds out")
    split = member.get("data_loader.args.validation_split")
    if isinstance(split, dict) and "column" in split:
        what = "names a column of the table, and --folds draws folds of its own"
        raise UserError("data_loader.args.validation_split", what, "leave it out, or leave --folds out")
    if has_test_part(split):
        what = "holds out a test part, on which --folds would train"
        raise UserError("data_loader.args.validation_split", what, "leave it out, or leave --folds out")
    if member.get("lr_scheduler.type") == "ReduceLROnPlateau":
        what = "is ReduceLROnPlateau, which watches the very fold that is then scored"
        raise UserError("lr_scheduler.type", what, "take another schedule for --folds")


def _refuse_other_level(group: Group, member: ConfigParser) -> None:
    if group.level is not None and member.get("data_loader.args.level") != 2:
        what = f"is {group.level}, which puts classes of level 2 together, and the member {member['name']} has none"
        raise UserError("level", what, "name configs of level 2, or leave it out")


def _not_normalized(config: ConfigParser) -> dict[str, bool]:
    """Nothing is measured that no comparison needs."""
    return {"normalize": False} if "normalize" in check_loader(config) else {}


def _difference(one: SoundDataLoader, other: SoundDataLoader) -> tuple[str, str] | None:
    """In what two members' loaders differ that must not, and what to do; None where they do not."""
    keys = "data_dir, split and filtered"
    if one.dataset.subject != other.dataset.subject:
        return "task", "members of one ensemble have one task"
    if one.classes != other.classes:
        return "classes", "members of one ensemble have the same classes"
    if not np.array_equal(one.dataset.names, other.dataset.names) or (
        one.dataset.fingerprint() != other.dataset.fingerprint()
    ):
        return "data", f"give all members the same {keys}"
    if one.split_digest() != other.split_digest():
        return "split", "give all members the same seed (or data_loader.args.seed) and split_by"
    then, now = (input_of(loader.input_spec) for loader in (one, other))
    if different := [key for key in then if then[key] != now[key]]:
        return f"input ({different[0]})", "give all members the same input_dir, frontend, rate, channels and duration"
    return None


def read_record(folder: Path) -> Any:
    """What `check_group` said of the group in a folder.

    Raises:
        UserError: there is none.
    """
    try:
        return read_json(folder / GROUP_FILE)
    except (OSError, ValueError) as error:
        hint = "name the folder of a train.py --folds: saved/models/NAME/RUN"
        raise UserError(folder, f"is no group of runs: {GROUP_FILE} cannot be read", hint) from error


def record_difference(then: Any, now: dict[str, Any]) -> str | None:
    """The dotted key in which a group was begun otherwise than it would be now; None where there is none.

    Args:
        then: of `read_record`.
        now: of `check_group`.
    """
    if not isinstance(then, dict):
        return "content"
    if difference := first_difference(*({**own, **dict.fromkeys(_LATER)} for own in _comparable(then, now))):
        return difference
    if matches(then.get("input"), dict[str, Any]) and (difference := input_difference(then["input"], now["input"])):
        return difference
    return first_difference(then.get("soft_targets", now.get("soft_targets")), now.get("soft_targets"), "soft_targets")


def _comparable(*records: dict[str, Any]) -> list[dict[str, Any]]:
    """Records whose members spell out their defaults; as they are, where one no longer fits the schema."""
    spelled_out = []
    for record in records:
        if not matches(members := record.get("members"), dict[str, dict[str, Any]]):
            return [*records]
        try:
            filled = {name: with_defaults(ConfigParser(own).to_dict()) for name, own in members.items()}
        except UserError:
            return [*records]
        spelled_out.append({**record, "members": filled})
    return spelled_out
