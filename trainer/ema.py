"""An exponential moving average of a model's weights: what is validated, saved to be tested, and predicts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model over the steps of a training.

    After step n, counted from 0, with d = min(decay, (1 + n) / (10 + n)): average = d * average + (1 - d) * weights.
    The smaller d of the first steps lets a short run forget its start. So are averaged all parameters, frozen ones
    too, and the floating-point buffers (the means and variances of batch normalisation); other buffers (its count of
    batches) are copied.

    Args:
        model: on its device, without the wrapper that several processes put around it. It stays as it is.
        decay: between 0 and 1.

    Attributes:
        model: a copy of the model in evaluation mode, which has the averaged weights.
        steps: how many steps were averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        pairs = [*zip(_tensors(self.model), _tensors(model), strict=True)]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each step of the optimizer."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages, values = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(averages, values, 1.0 - decay)
        for average, value in self._copied:
            average.copy_(value)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
