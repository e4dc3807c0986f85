"""Optimizers and learning-rate schedules by name, and when a schedule steps."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import torch
from torch.optim import lr_scheduler as schedules

from utils.config import ConfigParser
from utils.errors import UserError
from utils.registry import Registry

# These take a closure, sparse gradients or matrices alone, which the training loop and the models have not.
_LEFT_OUT = {"LBFGS", "SparseAdam", "Muon"}
# These take functions or other schedules, which JSON has not.
_LEFT_OUT |= {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
# These count batches; the others count epochs.
_BY_BATCH = {"OneCycleLR", "CyclicLR"}
# What ReduceLROnPlateau keeps of the figure that it watches.
_OF_FIGURE = {"best", "num_bad_epochs", "mode_worse"}

# These have one kernel for all of a step, on the CPU too; it is the fastest way, but not the default.
_FUSED = {"Adam", "AdamW", "SGD"}
_OTHER_WAYS = {"fused", "foreach", "capturable", "differentiable"}


def _registry(kind: str, module: Any, base: type) -> Registry:
    registry = Registry(kind)
    for name, item in inspect.getmembers(module, inspect.isclass):
        if issubclass(item, base) and item is not base and not name.startswith("_") and name not in _LEFT_OUT:
            registry.add(name, item)
    return registry


optimizers: Registry = _registry("optimizer", torch.optim, torch.optim.Optimizer)
lr_schedulers: Registry = _registry("learning-rate schedule", schedules, schedules.LRScheduler)


def make_optimizer(config: ConfigParser, parameter_groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of a config; the learning rate of a group with an ``lr_scale`` is that of the config times it.

    With ``no_decay_1d`` beside its type, biases, norms and whatever else has less than two axes have no weight decay.

    Null, for a model that is fitted at once, gives one of no parameters, which a checkpoint can hold as any other.

    Raises:
        UserError: it does not take these arguments.
    """
    if config["optimizer"] is None:
        return torch.optim.SGD([{"params": []}], lr=0.0)
    args = config.get("optimizer.args", {})
    if config["optimizer"].get("no_decay_1d"):
        if "weight_decay" not in inspect.signature(optimizers[config["optimizer"]["type"]]).parameters:
            what = f"is true, but {config['optimizer']['type']} has no weight decay"
            raise UserError("optimizer.no_decay_1d", what, "remove it, or take another optimizer")
        parameter_groups = _without_decay_of_1d(parameter_groups)
    fused = config["optimizer"]["type"] in _FUSED and not _OTHER_WAYS & args.keys()
    try:
        optimizer = config.init_obj("optimizer", optimizers, parameter_groups, **({"fused": True} if fused else {}))
    except ValueError as error:
        raise UserError("optimizer.args", str(error)) from error
    except TypeError as error:
        raise UserError("optimizer.args", f"{config.get('optimizer.args')} cannot be used: {error}") from error
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)
    return optimizer


def _without_decay_of_1d(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each group as two, without empty ones: parameters of two axes or more, and the others without weight decay."""
    split = []
    for group in groups:
        matrices = [parameter for parameter in group["params"] if parameter.ndim >= 2]
        others = [parameter for parameter in group["params"] if parameter.ndim < 2]
        split.append({**group, "params": matrices})
        split.append({**group, "params": others, "weight_decay": 0.0})
    return [group for group in split if group["params"]]


def watched_figure(config: ConfigParser) -> tuple[str, str | None]:
    """The mode and the figure of the trainer's monitor: ("min", "val_loss"), or ("off", None)."""
    monitor = config.get("trainer.monitor", "off")
    mode, _, figure = monitor.partition(" ")
    return mode, figure or None


class Schedule:
    """A learning-rate schedule that knows when to step: after a batch, after an epoch, or on a metric.

    Args:
        config: its section `lr_scheduler` names the schedule; null keeps the learning rate.
        optimizer: whose learning rate it sets; OneCycleLR takes its peak from it unless `max_lr` is given.
        steps_per_epoch: optimizer steps an epoch; OneCycleLR gets its total from it.
        monitor: the figure that ReduceLROnPlateau watches, and "min" or "max"; from the trainer's monitor.

    Raises:
        UserError: the schedule does not take these arguments, or is shorter than the run.
    """

    def __init__(
        self,
        config: ConfigParser,
        optimizer: torch.optim.Optimizer,
        steps_per_epoch: int,
        monitor: tuple[str, str | None] = ("off", None),
    ) -> None:
        section = config.get("lr_scheduler")
        self.name: str | None = section["type"] if section else None
        self._metric = monitor[1] or "val_loss"
        self._scheduler: Any = None
        if section is None:
            return
        args = dict(section.get("args", {}))
        if self.name == "OneCycleLR":
            args = self._one_cycle(args, config["trainer"]["epochs"] * steps_per_epoch, optimizer)
        for key in args.keys() & {"max_lr", "base_lr"}:
            if isinstance(args[key], (int, float)):
                args[key] = [args[key] * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        if self.name == "ReduceLROnPlateau" and monitor[1]:
            args.setdefault("mode", monitor[0])
        try:
            self._scheduler = lr_schedulers.lookup(self.name, "lr_scheduler.type")(optimizer, **args)
        except (ValueError, TypeError) as error:
            raise UserError("lr_scheduler.args", str(error)) from error

    @staticmethod
    def _one_cycle(args: dict[str, Any], steps: int, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Its arguments with the peak and the length filled in."""
        given = args.get("total_steps") or (args.get("epochs") or 0) * (args.get("steps_per_epoch") or 0)
        if given and given < steps:
            what = f"OneCycleLR ends after {given} steps, this run has {steps}"
            raise UserError("lr_scheduler.args", what, "leave out total_steps, epochs and steps_per_epoch")
        length = {} if given else {"total_steps": steps, "epochs": None, "steps_per_epoch": None}
        return {"max_lr": [group["lr"] for group in optimizer.param_groups], **args, **length}

    def after_batch(self) -> None:
        """To be called after each step of the optimizer."""
        if self.name in _BY_BATCH:
            self._step()

    def after_epoch(self, figures: dict[str, float]) -> None:
        """To be called after each epoch with its figures."""
        if self.name is None or self.name in _BY_BATCH:
            return
        if self.name == "ReduceLROnPlateau":
            # An undefined figure (a class that does not occur) is no plateau.
            if math.isfinite(figure := figures.get(self._metric, math.nan)):
                self._scheduler.step(figure)
        else:
            self._step()

    def _step(self) -> None:
        with warnings.catch_warnings():
            # That it comes before a step of the optimizer: so it does in a run resumed after the last batch of an
            # epoch, or where a step was left out.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        state = self._scheduler.state_dict() if self._scheduler else {}
        # OneCycleLR keeps a bound method, which a checkpoint cannot hold; it is made again from the config.
        return {"name": self.name, "state": {k: v for k, v in state.items() if not callable(v)}}

    def load_state_dict(self, state: dict[str, Any], steps_made: int, monitor_then: str | None = None) -> None:
        """Go on where the saved schedule was.

        Args:
            steps_made: by the optimizer, in the run that saved it.
            monitor_then: the trainer's monitor in that run; None: the one of this run.

        Raises:
            UserError: it was another kind of schedule, or of another length, or is further than its run.
        """
        if state["name"] != self.name:
            raise UserError("lr_scheduler.type", f"is {self.name}, the checkpoint has {state['name']}")
        if self._scheduler is None:
            return
        then, now = state["state"].get("total_steps"), self._scheduler.state_dict().get("total_steps")
        if then != now:
            what = f"{self.name} was laid out for {then} steps, this run has {now}"
            raise UserError(
                "lr_scheduler", what, "keep trainer.epochs, the batch size and the data, or start a new run"
            )
        # OneCycleLR knows no step beyond its last; a scaler may have left out some of the optimizer's.
        at = state["state"].get("last_epoch")
        if self.name in _BY_BATCH and not (isinstance(at, int) and 0 <= at <= steps_made):
            what = f"is at step {at} in the checkpoint, whose run had made {steps_made}"
            raise UserError("lr_scheduler", what, "go on from another checkpoint")
        # What the config says is not the checkpoint's to change.
        own = self._scheduler.state_dict()
        saved = state["state"].items()
        figure_then = self._metric if monitor_then is None else monitor_then.partition(" ")[2] or "val_loss"
        # The best of another figure says nothing of this one.
        same = (figure_then, state["state"].get("mode")) == (self._metric, own.get("mode"))
        stays = {"_schedule_phases"} if same else {"_schedule_phases", *_OF_FIGURE}
        moves = {k: v for k, v in saved if not isinstance(own.get(k), str) and k not in stays}
        self._scheduler.load_state_dict(moves)
