"""Losses that learn from more than the class of an item: its finer class, or what is heard in each frame.

In a training step they are called as ``loss(output, target, details_output, details_target)``, see `Detailed` and
`Batch.details`; with ``(output, target)`` alone they give the plain loss of the logits, for the figures of a split.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from model import losses
from model.loss import CrossEntropy, Weight

# What the data loader tells of an event: its class at level 2 of task 1; and of a frame: see `FrameTargets` there.
FINE_DIM = 7
FRAME_DIM = 3


@losses.register("fine_cross_entropy")
class FineCrossEntropy(CrossEntropy):
    """Cross entropy of the logits of the fine classes in training, of the logits of the task's classes for a split.

    The model makes the latter of the former, so that both are learnt.

    Args:
        weight: one factor a fine class, or "balanced", see `CrossEntropy`; for training. A split's loss has none.
        label_smoothing: this share of the target is spread evenly over all classes.
    """

    details = "fine"

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        details_output: Tensor | None = None,
        details_target: Tensor | None = None,
    ) -> Tensor:
        """Loss, float32 scalar.

        Args:
            output: logits ``(batch, classes)``; counts for a split alone.
            target: class indices ``(batch,)`` int64.
            details_output: logits ``(batch, fine)``.
            details_target: indices of fine classes ``(batch,)`` int64.
        """
        if details_target is None:
            return F.cross_entropy(output.float(), target, label_smoothing=self.label_smoothing)
        return super().forward(details_output, details_target)


@losses.register("frame_supervised")
class FrameSupervised(CrossEntropy):
    """Cross entropy of the logits, and in training `frame_weight` times the binary cross entropy of the frames.

    The frames' part is the mean over each item's known frames, and of these the mean over the items, weighted by class
    as the cross entropy is: so that several batches a step are the same as one large one. An item without any known
    frame adds nothing to it.

    Args:
        frame_weight: of the frames' part.
        weight, label_smoothing: see `CrossEntropy`.
        positive_weight: factor of the targets above 0 in a frame, one for all or a list of `FRAME_DIM`.

    Raises:
        ValueError: one of these is out of range.
    """

    details = "frames"

    def __init__(
        self,
        frame_weight: float = 1.0,
        weight: Weight = None,
        label_smoothing: float = 0.0,
        positive_weight: float | list[float] = 1.0,
    ) -> None:
        super().__init__(weight, label_smoothing)
        if not frame_weight >= 0:
            raise ValueError(f"frame_weight is {frame_weight}, it cannot be negative")
        self.frame_weight = frame_weight
        self.register_buffer("positive_weight", torch.tensor(positive_weight, dtype=torch.float32))
        factors = self.positive_weight
        if factors.shape not in ((), (FRAME_DIM,)) or not ((factors > 0) & factors.isfinite()).all():
            raise ValueError(f"positive_weight is {positive_weight}, expected a number above 0 or {FRAME_DIM} of them")

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        details_output: Tensor | None = None,
        details_target: Tensor | None = None,
    ) -> Tensor:
        """Loss, float32 scalar.

        Args:
            output: logits ``(batch, classes)``.
            target: class indices ``(batch,)`` int64.
            details_output: logits ``(batch, frames, k)``.
            details_target: ``(batch, frames, k)`` float32 from 0 to 1; a negative one is not known and does not count.
                With another number of frames, the nearest ones in time are taken.
        """
        loss = super().forward(output, target)
        if details_target is None:
            return loss
        if details_target.shape[1] != details_output.shape[1]:
            frames = details_output.shape[1]
            details_target = F.interpolate(details_target.mT, frames, mode="nearest-exact").mT
        known = (details_target >= 0).float()
        each = F.binary_cross_entropy_with_logits(
            details_output.float(),
            details_target,
            known,
            reduction="none",
            pos_weight=self.positive_weight,
        )
        items = each.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1.0)
        if self.weight is not None:
            items = items * self.weight[target]
        return loss + self.frame_weight * self._mean(items.sum(), target)
