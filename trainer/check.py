"""Checking a whole config before any work: names, arguments, and whether the parts fit each other."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.features import methods
from data_loader.frontend import shape_of_channels
from data_loader.resp_data_loader import data_folder
from data_loader.sound_data_loader import SoundDataLoader
from data_loader.store import read_meta
from model import architectures, losses, metrics
from model.loss import weight_problem
from trainer.optimization import Schedule, lr_schedulers, make_optimizer, optimizers, watched_figure
from trainer.section_check import check_loader, check_section
from trainer.starting import start_path
from utils.config import ConfigParser
from utils.errors import UserError, nearest


def check_config(config: ConfigParser) -> None:
    """Check all names and arguments of a config, and that its parts fit.

    Reads nothing but the table of the data and the description of the feature store.

    Raises:
        UserError: names the key that is wrong and the nearest valid one, or the choices; or the file that is missing
            and the command that makes it.
    """
    if config["arch"]["type"] == "Ensemble":
        what = "is Ensemble, which is put together of trained networks and not trained itself"
        raise UserError("arch.type", what, "train its members: python train.py -c CONFIG --folds 5")
    arch_args = check_section(config, "arch", architectures, filled_in=("input_shape",))
    loader_args = check_loader(config)
    loss_args = check_section(config, "loss", losses)
    _check_fitting(config)
    _check_distillation(config)
    _check_start(config)
    _check_context(config, loader_args)
    if config["optimizer"] is not None:
        check_section(config, "optimizer", optimizers, filled_in=("params",))
    if config.get("lr_scheduler"):
        # OneCycleLR takes its peak from the optimizer unless one is given.
        defaults = {"max_lr": 0.0} if config["lr_scheduler"]["type"] == "OneCycleLR" else {}
        check_section(config, "lr_scheduler", lr_schedulers, filled_in=("optimizer",), defaults=defaults)
    if issubclass(data_loaders[config["data_loader"]["type"]], SoundDataLoader):
        _check_data(config, arch_args, loader_args, loss_args)
    for number, name in enumerate(config["metrics"]):
        metrics.lookup(name, f"metrics[{number}]")
    _check_monitor(config, loader_args)
    _check_values(config, arch_args, loss_args)


def _check_fitting(config: ConfigParser) -> None:
    """A model that is fitted at once has one epoch and no optimizer; every other one has an optimizer."""
    name = config["arch"]["type"]
    if not architectures[name].fits_at_once:
        if config["optimizer"] is None:
            raise UserError("optimizer", f"is null, but {name} is trained by one", "name an optimizer")
        return
    for key, value in (("optimizer", None), ("lr_scheduler", None), ("trainer.epochs", 1), ("trainer.ema", None)):
        if (given := config.get(key)) != value:
            shown = given["type"] if isinstance(given, dict) else given
            wanted = "null" if value is None else value
            raise UserError(key, f"is {shown}, but {name} is fitted at once", f"set it to {wanted}")


def _check_distillation(config: ConfigParser) -> None:
    """A teacher's predictions are named, and are for a classifier of sounds that is trained by steps."""
    if (section := config.get("distillation")) is None:
        return
    if "soft_targets" not in section:
        hint = "train with --folds 5 --teacher FOLDER, or name a table"
        raise UserError("distillation.soft_targets", "is missing", hint)
    name, loader = config["arch"]["type"], config["data_loader"]["type"]
    if architectures[name].fits_at_once:
        raise UserError("distillation", f"is there, but {name} is fitted at once", "leave it out")
    if not issubclass(data_loaders[loader], SoundDataLoader):
        raise UserError("distillation", f"is there, but the items of {loader} have no names", "leave it out")
    if config.get("data_loader.args.augment.splice"):
        what = "makes recordings of two, of which no teacher has said anything"
        raise UserError("data_loader.args.augment.splice", what, "set it to 0 for a student")


def _check_start(config: ConfigParser) -> None:
    """What a training begins from is there, and it is one that has weights to begin from."""
    if config.get("start_from") is None or config.resume is not None:
        return
    if architectures[name := config["arch"]["type"]].fits_at_once:
        raise UserError("start_from", f"is there, but {name} is fitted at once", "leave it out")
    start_path(config)


def _check_context(config: ConfigParser, loader_args: dict[str, Any]) -> None:
    """What the other events of a recording say is taken for events, by a model that keeps the class proportions."""
    if not config.get("recording_context"):
        return
    name, loader = config["arch"]["type"], data_loaders[config["data_loader"]["type"]]
    if not issubclass(loader, SoundDataLoader) or loader.subject(loader_args).scoring != "task1":
        what = "is for the events of SPRSound's recordings"
        raise UserError("recording_context", what, "take task 1, or leave it out")
    if architectures[name].fits_at_once:
        raise UserError("recording_context", f"is there, but {name} is fitted at once", "leave it out")


def _check_values(config: ConfigParser, arch_args: dict[str, Any], loss_args: dict[str, Any]) -> None:
    """Have the loss, the optimizer and the schedule see their arguments on one weight: they know their ranges."""
    n_classes = arch_args.get("label_dim", 2)
    weight = {"weight": [1.0] * n_classes} if loss_args.get("weight") == "balanced" else {}
    try:
        criterion = config.init_obj("loss", losses, **weight)
        criterion(torch.zeros(n_classes, n_classes), torch.arange(n_classes))
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError("loss.args", str(error)) from error
    # A list has a value for each of the model's groups of parameters, whose number its making shows.
    values = (config.get("lr_scheduler.args") or {}).values()
    n_groups = max([1, *(len(value) for value in values if isinstance(value, list))])
    optimizer = make_optimizer(config, [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(n_groups)])
    watched = watched_figure(config)
    schedule = Schedule(config, optimizer, steps_per_epoch=1, monitor=watched)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer stepped before
            schedule.after_batch()
            schedule.after_epoch({"val_loss": 1.0, watched[1] or "val_loss": 1.0})
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError("lr_scheduler.args", f"{config['lr_scheduler']['args']} cannot be used: {error}") from error


def _check_data(
    config: ConfigParser, arch_args: dict[str, Any], loader_args: dict[str, Any], loss_args: dict[str, Any]
) -> None:
    loader = data_loaders[config["data_loader"]["type"]]
    classes = loader.known_classes(loader_args)
    if arch_args.get("label_dim") != len(classes):
        raise UserError(
            "arch.args.label_dim",
            f"is {arch_args.get('label_dim')}, but task {loader.subject(loader_args).task} has {len(classes)} classes",
            f"set it to {len(classes)}: {', '.join(classes)}",
        )
    details = _check_details(config, loader_args)
    weighed = loader.fine_classes(loader_args) if details == "fine" else classes
    if problem := weight_problem(loss_args.get("weight"), len(weighed)):
        raise UserError("loss.args.weight", problem)
    for number, name in enumerate(config["metrics"]):
        if problem := loader.metric_problem(loader_args, name):
            raise UserError(f"metrics[{number}]", f"is {name}, but {problem[0]}", problem[1])
    augmentation = Augmentation.from_config(loader_args.get("augment"))
    loader.check_data(loader_args)
    shape = _input_shape(loader_args, loader.channels)
    _check_augmentation(augmentation, loader_args, shape)
    architecture = architectures[config["arch"]["type"]]
    if problem := architecture.input_problem(arch_args, shape) if shape else None:
        raise UserError("arch.args", problem, "take another input_dir or other arguments")


def _check_details(config: ConfigParser, loader_args: dict[str, Any]) -> str | None:
    """What is learnt beside the class: the loss, the model and the loader agree on it."""
    section = config["loss"]
    name = section if isinstance(section, str) else section["type"]
    learnt = getattr(losses[name], "details", None)
    model, given = config["arch"]["type"], architectures[config["arch"]["type"]].details
    if learnt != given:
        what = f"{name} learns {_named(learnt)}, but the model {model} gives {_named(given)}"
        raise UserError("loss.type", what, "take another loss or another model")
    where = "data_loader.args.details"
    if learnt != (known := loader_args.get("details")):
        shown = "null" if known is None else known
        hint = f"set it to {'null' if learnt is None else learnt}, or take another loss and model"
        raise UserError(where, f"is {shown}, but the loss {name} learns {_named(learnt)}", hint)
    return learnt


def _named(details: str | None) -> str:
    return "no details" if details is None else f'the details "{details}"'


def _input_shape(loader_args: dict[str, Any], channels: int) -> tuple[int, ...] | None:
    """The shape of one item of input; None where only a network could tell. A loader's `channels`, if no argument."""
    where = "data_loader.args"
    if loader_args.get("input_dir") is not None:
        for key in ("frontend", "duration"):
            if loader_args[key] is not None:
                raise UserError(f"{where}.{key}", "goes with waveforms only", "set input_dir to null")
        return tuple(read_meta(data_folder(loader_args) / loader_args["input_dir"]).shape)
    frontend, channels = loader_args.get("frontend"), loader_args.get("channels", channels)
    if frontend is None:
        duration = loader_args.get("duration")
        samples = round(duration * loader_args["rate"]) if duration else -1
        return (samples,) if channels == 1 else (channels, samples)
    params = {"method": frontend} if isinstance(frontend, str) else dict(frontend)
    feature = methods.lookup(params.pop("method", ""), f"{where}.frontend")
    params = feature.checked(params, f"{where}.frontend")
    if "weights" in params:
        return None
    shape = tuple(feature(torch.zeros(loader_args["rate"]), loader_args["rate"], **params).shape)
    return shape_of_channels(shape, channels, f"{where}.channels")


def _check_augmentation(
    augmentation: Augmentation, loader_args: dict[str, Any], shape: tuple[int, ...] | None
) -> None:
    where = "data_loader.args.augment"
    given = loader_args.get("augment") or {}
    waveforms = loader_args.get("input_dir") is None
    if unused := [key for key in ("gain_db", "noise_db", "shift", "place") if given.get(key) and not waveforms]:
        raise UserError(
            f"{where}.{unused[0]}", "changes waveforms, but the input is features", "set input_dir to null"
        )
    if augmentation.place and not loader_args["duration"]:
        what = "cuts and pads to a duration, but there is none"
        raise UserError(f"{where}.place", what, "set data_loader.args.duration")
    spans = [key for key in ("level", "roll_bands", "edge_jitter", "roll_time", "splice") if given.get(key)]
    if spans and not _marks_spans(loader_args):
        what = "is for features that mark a span of time"
        raise UserError(f"{where}.{spans[0]}", what, "take multimel_event or multimel, or leave it out")
    if augmentation.roll_time and (waveforms or loader_args.get("task") != 2):
        what = "moves stored features of recordings, all of them"
        raise UserError(f"{where}.roll_time", what, "take task 2 with input_dir processed_multimel, or leave it out")
    if augmentation.splice and loader_args.get("details") != "frames":
        what = "needs to know what is heard in each frame"
        raise UserError(f"{where}.splice", what, 'set data_loader.args.details to "frames", or leave it out')
    if augmentation.mixup and not augmentation.mixup_alpha:
        raise UserError(f"{where}.mixup_alpha", "is 0", "expected more")
    for key in ("time_masks", "freq_masks"):
        if getattr(augmentation, key) < 0:
            raise UserError(f"{where}.{key}", f"is {getattr(augmentation, key)}", "expected at least 0")
    masks = [key for key in ("time_masks", "freq_masks") if given.get(key)]
    if masks and waveforms and loader_args.get("frontend") is None:
        raise UserError(f"{where}.{masks[0]}", "masks features, but the input is waveforms", "name a frontend")
    for mask in masks if shape else ():
        key = mask.replace("masks", "axis")
        if not -len(shape) <= getattr(augmentation, key) <= -1:
            hint = f"axes count from the end: -1 to {-len(shape)}"
            raise UserError(f"{where}.{key}", f"is {getattr(augmentation, key)}, the items are {shape}", hint)


def _check_monitor(config: ConfigParser, loader_args: dict[str, Any]) -> None:
    mode, figure = watched_figure(config)
    validates = bool(loader_args.get("validation_split"))
    if figure is not None:
        known = ["loss", *config["metrics"]]
        known += [f"val_{name}" for name in known] if validates else []
        if figure.startswith("val_") and figure.removeprefix("val_") in known and not validates:
            raise UserError("trainer.monitor", f"watches {figure}, but there is no validation", "set validation_split")
        if figure not in known:
            raise UserError("trainer.monitor", f"watches {figure}, which is not measured", nearest(figure, known))
    if config.get("lr_scheduler.type") == "ReduceLROnPlateau":
        if figure is None and not validates:
            what = "ReduceLROnPlateau watches val_loss, but there is no validation"
            raise UserError("lr_scheduler.type", what, "set validation_split, or a trainer.monitor")
        own = config.get("lr_scheduler.args.mode")
        if figure is not None and own not in (None, mode):
            raise UserError(
                "lr_scheduler.args.mode", f"is {own!r}, but the monitor is {mode} {figure}", "leave it out"
            )


def _marks_spans(loader_args: dict[str, Any]) -> bool:
    """Whether the input is features whose last channel marks a span."""
    frontend = loader_args.get("frontend")
    method = frontend.get("method") if isinstance(frontend, dict) else frontend
    if loader_args.get("input_dir") is not None:
        method = read_meta(data_folder(loader_args) / loader_args["input_dir"]).method
    return method is not None and methods.lookup(method, "method").span_hop_ms is not None
