"""Steps whose loss or gradient is not finite: found, named, and left out where the config says so."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from logger.log import get_logger
from utils.distributed import largest_of_all
from utils.errors import UserError

logger = get_logger(__name__)

REMEDY = 'take a lower learning rate or a trainer.grad_clip, or set trainer.on_nonfinite to "skip"'
# How many items a message names, and how many left-out steps of an epoch are told one by one.
_NAMED, _TOLD = 3, 5


class Step(NamedTuple):
    """A step of the optimizer that is about to be made.

    Attributes:
        loss, gradient: bool scalars on the model's device: whether they are finite.
        epoch, batch: the numbers of the epoch and of the last of the step's batches in it.
        items: ``(items,)`` int64: the numbers of its items in the data set.
        learning_rate: of the first group of parameters.
    """

    loss: Tensor
    gradient: Tensor
    epoch: int
    batch: int
    items: Tensor
    learning_rate: float


class NonFiniteGuard:
    """Looks at steps before they are made, and stops the run or leaves the step out.

    A look makes a GPU wait. So there, unless steps are to be left out, several are looked at together, in `look`,
    which has to be called before anything is saved. On a CPU each step is looked at.

    Args:
        skip: leave such steps out; else they stop the run.
        model: whose buffers (batch normalisation) a step that is left out must not change.
        device: of the model.
        dataset: whose `names` are those of its items.
        run: the run's folder, for the error.
    """

    def __init__(self, skip: bool, model: nn.Module, device: torch.device, dataset: Dataset, run: Path) -> None:
        self._skip = skip
        self._model = model
        self._each = skip or device.type == "cpu"
        self._dataset = dataset
        self._run = run
        self._steps: list[Step] = []
        self._buffers: list[Tensor] = []
        self._left_out = 0

    def begin(self) -> None:
        """Before the first batch of a step."""
        if self._skip:
            self._buffers = [buffer.clone() for buffer in self._model.buffers()]

    def leaves_out(self, step: Step) -> bool:
        """Whether the step is not to be made.

        Of several processes, all leave it out or none; what its batches did to the model's buffers is then undone.

        Raises:
            UserError: this step, or one not looked at before, is not finite, and the run is to stop then.
        """
        self._steps.append(step)
        if not self._skip:
            if self._each:
                self.look()
            return False
        bad = self._first_bad()
        if not any(largest_of_all([bad is not None])):
            return False
        with torch.no_grad():
            for buffer, before in zip(self._model.buffers(), self._buffers, strict=True):
                buffer.copy_(before)
        self._left_out += 1
        if bad and self._left_out <= _TOLD:
            logger.warning("%s: the step is left out", self._describe(bad))
        return True

    def look(self) -> None:
        """Look at the steps that were not looked at yet.

        Raises:
            UserError: see `leaves_out`.
        """
        if bad := self._first_bad():
            raise UserError(self._run, self._describe(bad), REMEDY)

    def end_epoch(self, epoch: int, n_items: int) -> None:
        """Say how many steps were left out.

        Args:
            n_items: of the steps that were made, in the whole epoch.

        Raises:
            UserError: see `look`; or no step was made.
        """
        self.look()
        left_out, self._left_out = self._left_out, 0
        if left_out:
            logger.warning("epoch %d: %d steps were left out: they were not finite", epoch, left_out)
            if not n_items:
                raise UserError(self._run, f"no step of epoch {epoch} has a finite loss and gradient", REMEDY)

    def _first_bad(self) -> Step | None:
        steps, self._steps = self._steps, []
        if not steps:
            return None
        finite = torch.stack([step.loss & step.gradient for step in steps]).tolist()
        return next((step for step, fine in zip(steps, finite, strict=True) if not fine), None)

    def _describe(self, step: Step) -> str:
        what = "the gradient" if step.loss else "the loss"
        names = self._dataset.names[step.items[:_NAMED].numpy()]
        more = f" and {len(step.items) - _NAMED} more" if len(step.items) > _NAMED else ""
        where = f"epoch {step.epoch}, batch {step.batch}, at a learning rate of {step.learning_rate:.3g}"
        return f"{what} is not finite in {where}, with the items {', '.join(names)}{more}"
