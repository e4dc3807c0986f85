"""ConfigParser: a JSON config, what it extends, what the command line changes, and the objects it names."""

from __future__ import annotations

import copy
import datetime
import functools
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError, nearest
from utils.files import write_json
from utils.registry import Registry
from utils.schema import check_schema
from utils.strict_json import check_plain, parse_json, read_json
from utils.versions import environment

# A run's folder that has this file is a group of runs, see `trainer/group.py`; its parts lie below it.
GROUP_FILE = "group.json"


class ConfigParser:
    """The configuration of one run.

    Args:
        config: the whole configuration; checked against the schema.
        run_id: name of the run's folders; a time stamp by default. "GROUP/PART" is a part of a group.
        resume: a checkpoint to go on from.

    Raises:
        UserError: a key is unknown, missing or of the wrong type.
    """

    def __init__(self, config: Mapping[str, Any], run_id: str | None = None, resume: Path | None = None) -> None:
        try:
            # The command line can say what JSON cannot: --lr inf.
            check_plain(dict(config))
        except ValueError as error:
            raise UserError("config", str(error)) from error
        check_schema(config)
        self._config = copy.deepcopy(dict(config))
        if run_id is not None and not self._can_be_id(run_id):
            raise UserError("--run_id", f"{run_id!r} cannot be the name of a folder")
        self.resume = resume
        self._run_id = run_id
        self._save_dir: Path | None = None
        self._is_new = False

    @classmethod
    def from_args(cls, args: Namespace, saved: Mapping[str, Any] | None = None) -> ConfigParser:
        """The config that the command line names and changes.

        Args:
            args: with the attributes `config`, `resume`, `run_id`, `set`, `lr`, `bs`, `data_dir`, those that exist.
            saved: the config of the checkpoint to go on from; taken where no config file is named.

        Raises:
            UserError: see `read_config` and `ConfigParser`.
        """
        path = getattr(args, "config", None)
        if path is None and saved is None:
            raise UserError("-c", "no config is named", "give -c configs/FILE.json, or -r CHECKPOINT")
        config = read_config(Path(path)) if path is not None else copy.deepcopy(dict(saved or {}))
        short = {
            "optimizer.args.lr": getattr(args, "lr", None),
            "data_loader.args.batch_size": getattr(args, "bs", None),
            "data_loader.args.data_dir": getattr(args, "data_dir", None),
        }
        changes = {key: value for key, value in short.items() if value is not None}
        changes |= parse_assignments(getattr(args, "set", None) or [])
        if "optimizer.args.lr" in changes and _get(config, "lr_scheduler.args.max_lr") is not None:
            # This schedule sets every learning rate itself; its peak is what the user means.
            changes = {"lr_scheduler.args.max_lr": changes["optimizer.args.lr"], **changes}
        for key, value in changes.items():
            set_key(config, key, value)
        resume = getattr(args, "resume", None)
        return cls(config, getattr(args, "run_id", None), Path(resume) if resume else None)

    def __getitem__(self, key: str) -> Any:
        return self._config[key]

    def get(self, key: str, default: Any = None) -> Any:
        """A value by its dotted key, as in ``config.get("trainer.epochs")``."""
        return _get(self._config, key, default)

    def to_dict(self) -> dict[str, Any]:
        """A copy of the whole configuration."""
        return copy.deepcopy(self._config)

    def changed(self, section: str, **values: Any) -> ConfigParser:
        """Another configuration that differs in some values of a section."""
        config = self.to_dict()
        for key, value in values.items():
            set_key(config, f"{section}.{key}", value)
        return ConfigParser(config)

    def init_obj(self, name: str, registry: Registry, *args: Any, **kwargs: Any) -> Any:
        """Make the object that ``config[name]`` names in `registry`.

        ``config.init_obj("arch", architectures)`` calls the registered architecture with the config's ``args``;
        `args` and `kwargs` come from the program and win over the config's.
        """
        return self.init_ftn(name, registry, *args, **kwargs)()

    def init_ftn(self, name: str, registry: Registry, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """The function that ``config[name]`` names in `registry`, with its arguments fixed."""
        section = self._config[name]
        section = {"type": section} if isinstance(section, str) else section
        item = registry.lookup(section["type"], f"{name}.type")
        return functools.partial(item, *args, **{**section.get("args", {}), **kwargs})

    @property
    def seed(self) -> int:
        """Of initialisation, split, order, augmentation and dropout."""
        return self._config.get("seed", 0)

    @property
    def save_root(self) -> Path:
        """The folder that all runs are saved in."""
        return Path(self.get("trainer.save_dir", "saved/"))

    @property
    def save_dir(self) -> Path:
        """This run's checkpoints; there after `make_run_folders`."""
        if self._save_dir is None:
            raise RuntimeError("make_run_folders comes first")
        return self._save_dir

    @property
    def log_dir(self) -> Path:
        """This run's TensorBoard log."""
        group = self.save_dir.parent.name if self.is_part else ""
        return self.save_root / "log" / self["name"] / group / self.save_dir.name

    @property
    def is_part(self) -> bool:
        """Whether this run is one of a group, which has an outcome of its own."""
        return (self.save_dir.parent / GROUP_FILE).is_file()

    def make_run_folders(self) -> None:
        """Make the folders of this run: those of the checkpoint it goes on from, or new ones that no run has.

        Of several processes, the first one makes them; all have to call this. What a run that goes on has noted of
        itself stays, until `note_config`.

        Raises:
            UserError: the folder cannot be made, or a run of the given id is there already.
        """
        from utils.distributed import first_process_says, rank

        folder = str(self._make_run_folders()) if rank() == 0 else None
        self._save_dir = Path(first_process_says(folder) or "")

    def _make_run_folders(self) -> Path:
        models = self.save_root / "models" / self["name"]
        try:
            if self.resume and self._run_id is None and (self.resume.parent / "config.json").is_file():
                folder = self.resume.parent
            else:
                folder = self._new_folder(models)
                self._is_new = True
                began = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
                write_json(folder / "environment.json", {"began": began, **environment()})
                write_json(folder / "config.json", self._config)
        except OSError as error:
            hint = "set trainer.save_dir to a folder that can be"
            raise UserError(error.filename or models, f"cannot be written: {error.strerror}", hint) from error
        return folder

    def note_config(self, config: Mapping[str, Any]) -> None:
        """Note in the folder of a run that goes on with what it is trained from now on.

        Not in `make_run_folders`: the checkpoint may be refused, or nothing may be left to train.

        Raises:
            UserError: it cannot be written.
        """
        path = self.save_dir / "config.json"
        try:
            write_json(path, config)
        except OSError as error:
            raise UserError(path, f"cannot be written: {error.strerror}") from error

    def _can_be_id(self, run_id: str) -> bool:
        """Whether it is the name of a folder, or of one in the folder of a group that is there."""
        *group, _ = names = run_id.split("/", maxsplit=1)
        if not all(map(_is_folder_name, names)):
            return False
        return not group or (self.save_root / "models" / self["name"] / group[0] / GROUP_FILE).is_file()

    def _new_folder(self, models: Path) -> Path:
        stamp = datetime.datetime.now().strftime("%m%d_%H%M%S")
        for name in [self._run_id] if self._run_id else _numbered(stamp):
            try:
                (models / name).mkdir(parents=True)
                return models / name
            except FileExistsError:
                continue
        raise UserError(models / (self._run_id or stamp), "there is such a run already", "take another --run_id")

    def discard_run_folders(self) -> None:
        """Remove the folders of a new run that came to nothing; those of a run that goes on stay."""
        if self._is_new:
            shutil.rmtree(self.save_dir, ignore_errors=True)
            shutil.rmtree(self.log_dir, ignore_errors=True)


def _is_folder_name(name: str) -> bool:
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")


def _numbered(stamp: str) -> Iterable[str]:
    yield stamp
    for number in range(2, 10_000):
        yield f"{stamp}_{number}"


def read_config(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a JSON config and merge it over the one that its key ``extends`` names, relative to its own folder.

    Raises:
        UserError: the file is missing, not JSON, not an object, holds a key twice, or extends itself.
    """
    if "\x00" in str(path):
        raise UserError(path, "cannot be a file's name")
    if path.resolve() in _seen:
        raise UserError(path, "extends itself")
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        beside = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise UserError(path, "there is no such config", nearest(path.name, beside) if beside else "") from error
    except (OSError, ValueError) as error:
        raise UserError(path, f"is not a readable JSON file: {error}") from error
    if not isinstance(config, dict):
        raise UserError(path, "is not a JSON object")
    base = config.pop("extends", None)
    if base is None:
        return config
    if not isinstance(base, str):
        raise UserError(f"{path}: extends", f"is {base!r}", "name one file")
    return merge(read_config(path.parent / base, (*_seen, path.resolve())), config)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`, objects key by key. Where both name another ``type``, its old ``args`` go.

    >>> merge({"trainer": {"epochs": 9, "monitor": "off"}}, {"trainer": {"epochs": 2}})
    {'trainer': {'epochs': 2, 'monitor': 'off'}}
    >>> merge({"loss": {"type": "focal", "args": {"gamma": 2}}}, {"loss": {"type": "cross_entropy"}})
    {'loss': {'type': 'cross_entropy'}}
    """
    if "type" in base and "type" in over and base["type"] != over["type"]:
        return copy.deepcopy(dict(over))
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result


def parse_assignments(assignments: Iterable[str], flag: str = "--set") -> dict[str, Any]:
    """``a.b=value`` items as a dict; a value is JSON, and what is not JSON is a string.

    >>> parse_assignments(["trainer.epochs=5", "trainer.monitor=max val_accuracy", "seed=null"])
    {'trainer.epochs': 5, 'trainer.monitor': 'max val_accuracy', 'seed': None}
    """
    result = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            hint = "where there are blanks, put quotes around the whole"
            raise UserError(flag, f"{assignment!r} is not of the form a.b.c=value", hint)
        try:
            result[key] = parse_json(text)
        except ValueError:
            result[key] = text
    return result


def _get(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def set_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; objects on the way are made."""
    *parents, last = key.split(".")
    section = config
    for number, part in enumerate(parents, start=1):
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UserError(key, f"{'.'.join(parents[:number])} is {section!r} and has no keys")
    section[last] = value
