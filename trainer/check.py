"""Checking a whole config before any work: names, arguments, and whether the parts fit each other."""

from __future__ import annotations

from typing import Any

from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.classes import resp_classes
from data_loader.features import methods
from data_loader.resp_data_loader import data_folder
from data_loader.store import read_meta
from model import architectures, losses, metrics
from model.loss import weight_problem
from trainer.optimization import lr_schedulers, optimizers
from utils.arguments import check_arguments
from utils.config import ConfigParser
from utils.errors import UserError, nearest
from utils.registry import Registry

_TASK_METRIC = {1: "_task2", 2: "_task1"}


def check_config(config: ConfigParser) -> None:
    """Check all names and arguments of a config, and that its parts fit.

    Reads nothing but the description of the feature store, if there is one.

    Raises:
        UserError: names the key that is wrong and the nearest valid one, or the choices.
    """
    arch_args = _check_section(config, "arch", architectures)
    loader_args = _check_section(config, "data_loader", data_loaders, filled_in=("rank", "world_size"))
    loss_args = _check_section(config, "loss", losses)
    _check_section(config, "optimizer", optimizers, filled_in=("params",))
    if config.get("lr_scheduler"):
        filled_in = ["optimizer"]
        if config["lr_scheduler"]["type"] == "OneCycleLR":
            filled_in += ["total_steps"] if "total_steps" not in config["lr_scheduler"].get("args", {}) else []
        _check_section(config, "lr_scheduler", lr_schedulers, filled_in=tuple(filled_in))
    if "task" in loader_args:
        _check_task(config, arch_args, loader_args, loss_args)
    for number, name in enumerate(config["metrics"]):
        metrics.lookup(name, f"metrics[{number}]")
    _check_monitor(config, loader_args)


def _check_section(
    config: ConfigParser, name: str, registry: Registry, filled_in: tuple[str, ...] = ()
) -> dict[str, Any]:
    section = config[name]
    section = {"type": section} if isinstance(section, str) else section
    item = registry.lookup(section["type"], f"{name}.type")
    return check_arguments(item, section.get("args", {}), f"{name}.args", filled_in=filled_in)


def _check_task(
    config: ConfigParser, arch_args: dict[str, Any], loader_args: dict[str, Any], loss_args: dict[str, Any]
) -> None:
    task, level = loader_args["task"], loader_args["level"]
    classes = resp_classes(task, level)
    if arch_args.get("label_dim") != len(classes):
        raise UserError(
            "arch.args.label_dim",
            f"is {arch_args.get('label_dim')}, but task {task}-{level} has {len(classes)} classes",
            f"set it to {len(classes)}: {', '.join(classes)}",
        )
    if problem := weight_problem(loss_args.get("weight"), len(classes)):
        raise UserError("loss.args.weight", problem)
    for number, name in enumerate(config["metrics"]):
        if name.endswith(_TASK_METRIC[task]):
            right = name.replace(_TASK_METRIC[task], f"_task{task}")
            raise UserError(f"metrics[{number}]", f"is {name}, but the data is of task {task}", f"take {right}")
    Augmentation.from_config(loader_args["augment"])
    shape = _feature_shape(loader_args)
    architecture = architectures[config["arch"]["type"]]
    problem = architecture.input_problem(arch_args, shape) if shape else None
    if problem:
        raise UserError("arch.args", problem, "take another input_dir or other arguments")


def _feature_shape(loader_args: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape of one item of input, as far as it can be told before any work."""
    where = "data_loader.args"
    if loader_args["input_dir"] is not None:
        for key in ("frontend", "duration"):
            if loader_args[key] is not None:
                raise UserError(f"{where}.{key}", "goes with waveforms only", "set input_dir to null")
        folder = data_folder(loader_args)
        return tuple(read_meta(folder / loader_args["input_dir"]).shape) if folder.is_dir() else None
    frontend = loader_args["frontend"]
    if frontend is None:
        duration = loader_args["duration"]
        return (round(duration * loader_args["rate"]),) if duration else (-1,)
    params = {"method": frontend} if isinstance(frontend, str) else dict(frontend)
    feature = methods.lookup(params.pop("method", ""), f"{where}.frontend")
    feature.checked(params, f"{where}.frontend")
    return None


def _check_monitor(config: ConfigParser, loader_args: dict[str, Any]) -> None:
    monitor = config.get("trainer.monitor", "off")
    if monitor == "off":
        return
    figure = monitor.split()[1]
    known = ["loss", *config["metrics"]]
    known += [f"val_{name}" for name in known]
    if figure not in known:
        raise UserError("trainer.monitor", f"watches {figure}, which is not measured", nearest(figure, known))
    if figure.startswith("val_") and not loader_args.get("validation_split"):
        raise UserError("trainer.monitor", f"watches {figure}, but there is no validation", "set validation_split")
