"""Losses, called as ``loss(output, target)`` on logits; each a module, so that its weights follow the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import losses

Weight = list[float] | Literal["balanced"] | None


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Weights of the classes inverse to their frequency, n / (k * n_c), what "balanced" stands for.

    n is the number of items and k the number of classes that occur, as in scikit-learn's `compute_class_weight`. A
    class without items gets 0: nothing can be learnt about it, and it must not blow up a loss.

    >>> balanced_weights([6, 2, 0])
    [0.6666666666666666, 2.0, 0.0]
    """
    total, occurring = sum(counts), sum(count > 0 for count in counts)
    return [total / (occurring * count) if count else 0.0 for count in counts]


def weight_problem(weight: Weight, label_dim: int) -> str | None:
    """Why a loss cannot take this `weight` for `label_dim` classes; None where it can."""
    if weight is None or weight == "balanced":
        return None
    if len(weight) != label_dim:
        return f"there are {len(weight)} weights for {label_dim} classes"
    if not all(math.isfinite(value) and value >= 0 for value in weight) or not any(weight):
        return f"weights are finite, not negative and not all 0, unlike {weight}"
    return None


class _WeightedLoss(nn.Module):
    """Keeps the class weights, float32 ``(classes,)`` or None, as a buffer."""

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        if weight == "balanced":
            raise ValueError('"balanced" needs the class counts: give balanced_weights(counts)')
        self.register_buffer("weight", None if weight is None else torch.tensor(weight, dtype=torch.float32))

    def _mean(self, summed: Tensor, target: Tensor) -> Tensor:
        """A sum over weighted items, divided by the sum of their weights; by 1 where that is 0."""
        if self.weight is None:
            return summed / len(target)
        total = self.weight[target].sum()
        return summed / torch.where(total > 0, total, 1.0)


@losses.register("cross_entropy")
class CrossEntropy(_WeightedLoss):
    """Cross entropy of logits, the mean over the batch, as `torch.nn.CrossEntropyLoss`.

    Unlike there, a batch with only classes of weight 0 gives a finite loss. Computed in float32.

    Args:
        weight: one factor a class, or "balanced", which the trainer replaces by `balanced_weights`; the mean is
            divided by the sum of the weights of the targets.
        label_smoothing: this share of the target is spread evenly over all classes.

    Raises:
        ValueError: `label_smoothing` is no share.
    """

    def __init__(self, weight: Weight = None, label_smoothing: float = 0.0) -> None:
        super().__init__(weight)
        # PyTorch takes a negative one for none.
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0.0 and 1.0, it is {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss, float32 scalar, of logits ``(batch, classes)`` and class indices ``(batch,)`` int64."""
        summed = F.cross_entropy(
            output.float(), target, self.weight, reduction="sum", label_smoothing=self.label_smoothing
        )
        return self._mean(summed, target)


@losses.register("focal")
class Focal(_WeightedLoss):
    """Focal loss -w_t (1 - p_t)^gamma log(p_t) (Lin et al. 2017, arXiv 1708.02002, equation 5), softmax over classes.

    The mean over the batch is divided by the sum of the weights of the targets, so that gamma 0 is `cross_entropy`.
    Computed in float32.

    Args:
        gamma: how much the items that are classified well count less.
        weight: as for `cross_entropy`; the alpha of the paper.

    Raises:
        ValueError: `gamma` is negative.
    """

    def __init__(self, gamma: float = 2.0, weight: Weight = None) -> None:
        super().__init__(weight)
        # It would make an item that is classified surely infinity times 0.
        if not gamma >= 0:
            raise ValueError(f"gamma is {gamma}, it cannot be negative")
        self.gamma = gamma

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss, float32 scalar, of logits ``(batch, classes)`` and class indices ``(batch,)`` int64."""
        log_p = F.log_softmax(output.float(), dim=1).gather(1, target[:, None]).squeeze(1)
        # expm1 keeps 1 - p where p is near 1; the clamp keeps the gradient of a power below 1 finite there.
        missed = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)
        items = -(missed**self.gamma) * log_p
        if self.weight is not None:
            items = items * self.weight[target]
        return self._mean(items.sum(), target)
