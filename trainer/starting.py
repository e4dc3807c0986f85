"""Weights that a training begins with: those of another training, but for what it names (a config's `start_from`).

A network knows by heart what it was trained on. One that begins from it must not be validated on the same patients:
its score would be too good.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from data_loader.sound_data_loader import SoundDataLoader
from logger.log import get_logger
from model import architectures
from model.weights import misfit
from trainer.building import make_loader, make_model
from trainer.difference import input_difference
from trainer.section_check import check_loader
from utils.arguments import check_arguments
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import file_digest

logger = get_logger(__name__)

_KEY = "start_from.checkpoint"
# What changes an item's input and not which items there are, and what it is for these.
_INPUT = {"input_dir": None, "frontend": None, "duration": None, "normalize": False, "augment": None, "details": None}


def start_path(config: ConfigParser) -> Path | None:
    """The checkpoint that a config's training begins from; None where it begins from nothing.

    ``{fold}`` and ``{seed}`` in the name stand for those of the run, so that each run of ``--folds`` begins from the
    run of its own fold.

    Raises:
        UserError: the fold is asked for and the run has none; or there is no such file.
    """
    if (section := config.get("start_from")) is None:
        return None
    name, split = section["checkpoint"], config.get("data_loader.args.validation_split")
    fold = split.get("fold") if isinstance(split, dict) else None
    if "{fold}" in name and fold is None:
        hint = "name one checkpoint, or train a fold (data_loader.args.validation_split)"
        raise UserError(_KEY, f"is {name}, but this run is no fold", hint)
    path = Path(name.replace("{fold}", str(fold)).replace("{seed}", str(config.seed)))
    if not path.is_file():
        raise UserError(_KEY, f"there is no file {path}", "name a checkpoint that train.py wrote")
    return path


def check_begin(config: ConfigParser, loader: SoundDataLoader) -> None:
    """Check that a training can begin from what its config names, if it names anything.

    Raises:
        UserError: see `begin_from`.
    """
    if start_path(config):
        begin_from(config, make_model(config, restore=True, input_shape=loader.frontend().spec.shape), loader)


def begin_from(config: ConfigParser, model: BaseModel, loader: BaseDataLoader) -> dict[str, str] | None:
    """Give a new model the weights that its training begins with.

    Every tensor of the checkpoint has its place in the model, and every tensor of the model is in the checkpoint, but
    for those of the modules that ``start_from.except`` names: these are as the model was made. Of the same
    architecture for input of another size, see `BaseModel.resized`.

    Args:
        model: of the config, on the CPU.
        loader: of the config.

    Returns:
        The checkpoint's path and sha256, to be noted; None where the config has no `start_from`.

    Raises:
        UserError: see `start_path`; the weights do not fit; or what they come from has heard patients of the
            validation. The model is then as before.
    """
    if (path := start_path(config)) is None:
        return None
    checkpoint = load_checkpoint(path)
    its, own = _config_of(checkpoint, path)["arch"], config["arch"]
    if its["type"] == "Ensemble":
        hint = "name that of one of them, in the folder of the group: MEMBER-seedS-foldK/checkpoint-epochN.pth"
        raise UserError(path, "holds several networks", hint)
    state = checkpoint["state_dict"]
    if its["type"] == own["type"]:
        architecture = architectures[own["type"]]
        args = check_arguments(architecture, its.get("args", {}), f"{path}: arch.args", filled_in=("input_shape",))
        state = model.resized(state, args)
    taken = _fitting(model, state, config["start_from"].get("except", []), path)
    _refuse_known_patients(path, loader, config["data_loader"]["type"])
    model.load_state_dict(taken, strict=False)
    anew = sorted({_module(name) for name in model.state_dict().keys() - taken.keys()})
    logger.info("begins from %s, but for: %s", path, ", ".join(anew) or "nothing")
    _say_what_differs(checkpoint, path, loader, bool(anew))
    return {"path": str(path), "sha256": file_digest(path)}


def _fitting(model: BaseModel, state: dict[str, Any], excepted: list[str], path: Path) -> dict[str, Any]:
    """The tensors that are taken."""
    own = model.state_dict()
    for module in excepted:
        if not any(_is_in(name, [module]) for name in (*own, *state)):
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in own))
            raise UserError("start_from.except", f"names {module}, which is no part of the model", f"it has {known}")
    wanted = {name for name in own if not _is_in(name, excepted)}
    there = {name for name in state if not _is_in(name, excepted)}
    missing, unexpected = wanted - there, there - wanted
    other = {name for name in wanted & there if own[name].shape != state[name].shape}
    shapes = [f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in other]
    if problem := misfit(missing, unexpected, shapes):
        modules = sorted({_module(name) for name in missing | unexpected | other})
        hint = f"start_from.except names what begins anew; here: {', '.join(modules)}"
        if not wanted & there:
            hint = "begin from a network of the same architecture"
        raise UserError(path, f"does not fit the model, {problem}", hint)
    return {name: state[name] for name in wanted}


def _say_what_differs(checkpoint: Mapping[str, Any], path: Path, loader: BaseDataLoader, some_anew: bool) -> None:
    """Tensors may fit that mean something else."""
    if not isinstance(loader, SoundDataLoader):
        return
    if difference := input_difference(checkpoint["input"], loader.input_spec.to_dict()):
        logger.info("%s was trained on another %s", path, difference)
    if not some_anew and tuple(checkpoint["classes"]) != loader.classes:
        what = f"knows the classes {', '.join(checkpoint['classes'])}, and its last layer begins for others"
        logger.warning("%s %s; start_from.except names what begins anew", path, what)


def _is_in(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _module(name: str) -> str:
    """Of a tensor's name, that of the module that it belongs to."""
    return name.rpartition(".")[0] or name


def _config_of(checkpoint: Mapping[str, Any], path: Path) -> ConfigParser:
    try:
        return ConfigParser(checkpoint["config"])
    except UserError as error:
        raise UserError(path, f"does not fit this program: {error.subject} {error.what}", error.hint) from error


def _refuse_known_patients(path: Path, loader: BaseDataLoader, loader_type: str) -> None:
    held_out = [*loader.valid_indices, *getattr(loader, "test_indices", ())]
    if not held_out:
        return
    if not isinstance(loader, SoundDataLoader):
        known, unknown = set(), f"whose sounds {path} was trained on is not known"
    else:
        known, unknown = _known_patients(path, loader, loader_type)
        groups = loader.dataset.groups
        # Those that are on both sides anyway, as the loader has warned, make it no worse.
        if both := known & {*groups[held_out].tolist()} - {*groups[loader.train_indices].tolist()}:
            what = f"was trained on {len(both)} of the {loader.dataset.subject.groups} that this run is validated on"
            hint = "begin from a network that was trained without them"
            if hasattr(loader, "split_as"):
                hint += "; data_loader.args.split_as gives one task the sides of another"
            raise UserError(path, f"{what}, as {min(both)}", hint)
    if unknown:
        logger.warning("%s: if it is those of the validation, scores are too good", unknown)


def _known_patients(path: Path, loader: SoundDataLoader, loader_type: str) -> tuple[set[str], str]:
    """The patients of a loader's data that a checkpoint, or what it began from, was trained on; what is not known."""
    known: set[str] = set()
    unknown = ""
    passed: list[Path] = []
    before: Path | None = path
    while before and before not in passed:
        passed.append(path := before)
        unsaid = f"whose sounds {path} was trained on is not known here"
        try:
            checkpoint = load_checkpoint(path)
            config = _config_of(checkpoint, path)
            before = start_path(config)
        except UserError as error:
            return known, f"{unsaid} ({error.subject} {error.what})"
        try:
            known |= _trained_patients(config, checkpoint, loader, loader_type)
        except UserError as error:
            unknown = f"{unsaid} ({error.subject} {error.what})"
    return known, unknown


def _trained_patients(
    config: ConfigParser, checkpoint: Mapping[str, Any], loader: SoundDataLoader, loader_type: str
) -> set[str]:
    """The patients in a loader's data that a checkpoint of this config was trained on.

    Raises:
        UserError: it was other data.
    """
    if (its_type := config["data_loader"]["type"]) != loader_type:
        raise UserError("data_loader.type", f"was {its_type}")
    given = check_loader(config)
    same = {key: value for key, value in _INPUT.items() if key in given}
    its = make_loader(config.changed("data_loader.args", **same, data_dir=str(loader.dataset.data_dir)))
    now, then = its.dataset.fingerprint(), checkpoint.get("data")
    splits = its.dataset.table["split"].unique()
    if not isinstance(then, dict) or any(now.get(split) != then.get(split) for split in splits):
        raise UserError(loader.dataset.data_dir, "is other data")
    if checkpoint.get("split") != its.split_digest():
        raise UserError(loader.dataset.data_dir, "was split otherwise")
    return {*its.dataset.groups[its.train_indices].tolist()}
