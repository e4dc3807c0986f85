"""What a training step minimises: the loss of a batch, mixed, with details, distilled; and what it weighs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from base.base_model import Detailed
from trainer.distillation import Distillation
from trainer.mixup import Mix


def batch_loss(
    criterion: nn.Module,
    output: Tensor | Detailed,
    target: Tensor,
    details: Tensor | None,
    mix: Mix | None,
    distillation: Distillation | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """The loss of a batch, scalar.

    Args:
        criterion: called with the details where the model gives any.
        output: of the model in training mode.
        target: ``(batch,)`` int64 class indices.
        details: of the batch, see `Batch`; None where there are none.
        mix: how its items were mixed; None for not at all.
        distillation: what else is learnt from; None for nothing.
        soft: what it says of the batch, ``(batch, classes)``.
    """
    logits = output.logits if isinstance(output, Detailed) else output

    def loss(target: Tensor, details: Tensor | None, soft: Tensor | None) -> Tensor:
        if isinstance(output, Detailed):
            of_labels = criterion(logits, target, output.details, details)
        else:
            of_labels = criterion(logits, target)
        if distillation is None:
            return of_labels
        return distillation.loss(of_labels, logits, soft, item_weights(criterion, target, details))

    return mix.loss(loss, target, details, soft) if mix else loss(target, details, soft)


def item_weights(criterion: nn.Module, target: Tensor, details: Tensor | None) -> Tensor | None:
    """What each item counts in the mean of a loss, ``(batch,)``; None for all the same."""
    weight = getattr(criterion, "weight", None)
    if weight is None:
        return None
    return weight[details if getattr(criterion, "details", None) == "fine" else target]


def batch_mass(criterion: nn.Module, target: Tensor, details: Tensor | None) -> Tensor:
    """What the mean of a batch's loss is divided by, scalar: the number of its items, or the sum of their weights.

    Mixing leaves it as it is: each item is the other of one.
    """
    weights = item_weights(criterion, target, details)
    return torch.tensor(float(len(target)), device=target.device) if weights is None else weights.sum()
