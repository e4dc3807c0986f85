"""One step of the optimizer, of the gradients of one batch or of several."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.ema import WeightAverage
from trainer.optimization import Schedule
from utils.distributed import sum_of_all, world_size


class Stepper:
    """Adds up the gradients of a step's batches, clips them, and steps.

    The loss of a batch is a mean, weighted by class. With several batches a step, of one process or of several, each
    is multiplied by the sum of its weights, and their sum is divided by all weights: the same as one large batch.

    Args:
        model: whose gradients these are.
        optimizer: of its parameters.
        schedule: of the learning rate.
        average: of the weights, or None.
        device: of the model.
        precision: of the forward pass; "fp16" has its gradients scaled.
        grad_clip: greatest norm of all gradients; None does not clip.
        accumulate: batches a step, of each process.

    Attributes:
        several: whether a step takes more than one batch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        average: WeightAverage | None,
        device: torch.device,
        precision: str,
        grad_clip: float | None,
        accumulate: int,
    ) -> None:
        self.model, self.optimizer, self.schedule, self.average = model, optimizer, schedule, average
        self.grad_clip = grad_clip
        self.several = accumulate > 1 or world_size() > 1
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._mass = torch.zeros((), device=device)

    def backward(self, loss: Tensor, mass: Tensor | None) -> None:
        """Add a batch's gradients.

        Args:
            loss: scalar, the mean of the batch.
            mass: scalar, what that mean was divided by, see `batch_mass`; needed where a step takes several batches.
        """
        if self.several:
            self._mass = self._mass + mass
            loss = loss * mass
        self.scaler.scale(loss).backward()

    def gradient_norm(self) -> Tensor:
        """Make the added gradients those of the step, clipped if asked for; gives their norm before clipping."""
        if self.several:
            # Processes have averaged their gradients; they are to be added up.
            mass = sum_of_all(self._mass) / world_size()
            mass = torch.where(mass > 0, mass, 1.0)
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(mass)
            self._mass = torch.zeros_like(mass)
        self.scaler.unscale_(self.optimizer)
        if self.grad_clip:
            return nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        return nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def leave_out(self) -> None:
        """Forget the gradients, after `gradient_norm`."""
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Step, after `gradient_norm`; the schedule and the average follow."""
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        # A step that the scaler left out, because a gradient overflowed, is none for the rest either.
        if scale is None or self.scaler.get_scale() >= scale:
            self.schedule.after_batch()
            if self.average:
                self.average.update()
