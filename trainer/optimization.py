"""Optimizers and learning-rate schedules by name, and when a schedule steps."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import lr_scheduler as schedules

from utils.config import ConfigParser
from utils.errors import UserError
from utils.registry import Registry

# These take a closure or sparse gradients, which the training loop has not.
_LEFT_OUT = {"Optimizer", "LBFGS", "SparseAdam"}
# These count batches; the others count epochs.
_BY_BATCH = {"OneCycleLR", "CyclicLR"}


def _public_classes(module: Any, base: type) -> dict[str, type]:
    found = inspect.getmembers(module, lambda item: inspect.isclass(item) and issubclass(item, base))
    return {name: item for name, item in found if not name.startswith("_") and item is not base}


def _registry(kind: str, classes: dict[str, type]) -> Registry:
    registry = Registry(kind)
    for name, item in classes.items():
        registry.add(name, item)
    return registry


optimizers: Registry = _registry(
    "optimizer",
    {n: c for n, c in _public_classes(torch.optim, torch.optim.Optimizer).items() if n not in _LEFT_OUT},
)
lr_schedulers: Registry = _registry("learning-rate schedule", _public_classes(schedules, schedules.LRScheduler))


class Schedule:
    """A learning-rate schedule that knows when to step: after a batch, after an epoch, or on a metric.

    Args:
        config: its section `lr_scheduler` names the schedule; null keeps the learning rate.
        optimizer: whose learning rate it sets.
        steps_per_epoch: optimizer steps an epoch; OneCycleLR gets its total from it.
        monitor: the figure that ReduceLROnPlateau watches, and "min" or "max"; from the trainer's monitor.
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
        if self.name == "OneCycleLR" and not {"total_steps", "epochs"} & args.keys():
            args["total_steps"] = config["trainer"]["epochs"] * steps_per_epoch
        if self.name == "ReduceLROnPlateau" and monitor[1]:
            args.setdefault("mode", monitor[0])
        try:
            self._scheduler = lr_schedulers.lookup(self.name, "lr_scheduler.type")(optimizer, **args)
        except (ValueError, TypeError) as error:
            raise UserError("lr_scheduler.args", str(error)) from error

    def after_batch(self) -> None:
        """To be called after each step of the optimizer."""
        if self.name in _BY_BATCH:
            self._scheduler.step()

    def after_epoch(self, figures: dict[str, float]) -> None:
        """To be called after each epoch with its figures."""
        if self.name is None or self.name in _BY_BATCH:
            return
        if self.name == "ReduceLROnPlateau":
            # An undefined figure (a class that does not occur) is no plateau.
            if self._metric in figures:
                self._scheduler.step(figures[self._metric])
        else:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        state = self._scheduler.state_dict() if self._scheduler else {}
        # OneCycleLR keeps a bound method, which a checkpoint cannot hold; it is made again from the config.
        return {"name": self.name, "state": {k: v for k, v in state.items() if not callable(v)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the saved schedule was.

        Raises:
            UserError: it was another kind of schedule.
        """
        if state["name"] != self.name:
            raise UserError("lr_scheduler.type", f"is {self.name}, the checkpoint has {state['name']}")
        if self._scheduler:
            self._scheduler.load_state_dict(state["state"])
