"""Mixup: training on mixtures of two items and of their losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """How the items of one batch are mixed.

    Attributes:
        share: of each item in its mixture; the rest is the other's.
        others: ``(batch,)`` int64, on the batch's device: the row of the other item; each row is one once.
    """

    share: float
    others: Tensor

    def inputs(self, data: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        """A model's arguments, mixed; a mixture is as long as the longer of the two.

        Args:
            data: ``(batch, ...)`` float.
            lengths: ``(batch,)`` int64, where the model takes lengths and there are any.
        """
        mixed = (data * self.share).add_(data[self.others], alpha=1.0 - self.share)
        return (mixed,) if lengths is None else (mixed, torch.maximum(lengths, lengths[self.others]))

    def loss(self, loss: Callable[..., Tensor], *known: Tensor | None) -> Tensor:
        """The loss of the items and that of the others, by their shares.

        Args:
            loss: of `known`.
            known: of the items before mixing, each ``(batch, ...)`` or None: class indices, details, soft targets.
        """
        of_others = loss(*(None if each is None else each[self.others] for each in known))
        return self.share * loss(*known) + (1.0 - self.share) * of_others

    def larger(self, target: Tensor) -> Tensor:
        """The targets ``(batch,)`` of what is the larger part of each mixture."""
        return target if self.share >= 0.5 else target[self.others]


class Mixup:
    """Mixes some of the batches (Zhang et al., arXiv 1710.09412); all items of one by the same share.

    Args:
        share: of the batches.
        alpha: the share of an item in its mixture is drawn from Beta(alpha, alpha).
    """

    def __init__(self, share: float, alpha: float) -> None:
        self.share, self.alpha = share, alpha

    def draw(self, n_items: int, device: torch.device) -> Mix | None:
        """How the next batch is mixed; None for not at all. Without any mixing, no random number is drawn."""
        # Drawn by the CPU, in any case: no GPU has to be waited for.
        if not self.share or float(torch.rand(())) >= self.share:
            return None
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        return Mix(share, torch.randperm(n_items, device=device))
