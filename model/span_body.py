"""The convolutional bodies that read spectrograms with a channel that marks a span of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.mobilenet import MobileNetAS
from model.ranges import dropout_problem
from model.small_resnet import small_resnet
from utils.errors import UserError

# The bodies that there are.
Body = Literal["resnet", "mn04_as", "mn10_as"]
# Frames and bands that the deepest body halves away.
_LEAST_SIDE = 32


class SpanBody(nn.Module):
    """Normalises each input channel and runs a convolutional body.

    Args:
        indim: channels of the input.
        body: "resnet": `small_resnet`; "mn04_as" or "mn10_as": the convolutions of `MobileNetAS`.
        weights: of a MobileNet, see there; None for random numbers, and for the ResNet.
        frames_per_step: how far apart the steps in time are, a power of 2; None: as the body has it, 16 for the
            ResNet and 32 for MobileNets.

    Raises:
        UserError: weights were asked for and cannot be had, or the body has none, or it has no such steps.
    """

    def __init__(self, indim: int, body: Body, weights: str | None, frames_per_step: int | None = None) -> None:
        super().__init__()
        # Batch normalisation in place of fixed numbers: the weights of AudioSet expect about the deviation 1.
        self.norm = nn.BatchNorm2d(indim)
        if body == "resnet":
            if weights is not None:
                raise UserError("arch.args.weights", f"is {weights!r}, but the body resnet has none", "set it to null")
            self.layers, self.channels = small_resnet(indim)
        else:
            network = MobileNetAS(2, indim, body, weights)
            self.layers = network.features
            self.channels = network.classifier[2].in_features
        if frames_per_step is not None:
            _keep_time(self.layers, frames_per_step)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, indim, freq, time)`` to ``(batch, channels, steps)``, the mean over frequency."""
        # PyTorch normalises so few channels 15 times slower on a CPU where they lie last in memory.
        x = self.norm(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return self.layers(x).mean(dim=2)


def _keep_time(layers: nn.Sequential, frames_per_step: int) -> None:
    """Have the last layers that halve both axes halve frequency alone, until steps are that many frames apart."""
    # A layer may halve on two ways: a residual block and its shortcut.
    halving = [found for layer in layers if (found := _halving(layer))]
    wanted = frames_per_step.bit_length() - 1
    if frames_per_step != 2**wanted or wanted > len(halving):
        steps = ", ".join(str(2**n) for n in range(len(halving) + 1))
        raise UserError("arch.args.frames_per_step", f"is {frames_per_step}", f"take one of {steps}")
    for convolutions in halving[wanted:]:
        for convolution in convolutions:
            convolution.stride = (2, 1)


def _halving(layer: nn.Module) -> list[nn.Conv2d]:
    return [part for part in layer.modules() if isinstance(part, nn.Conv2d) and part.stride == (2, 2)]


def span_problem(name: str, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
    """Why a network of this name on a `SpanBody` cannot take items of a shape; None where it can."""
    if len(shape) != 3 or shape[0] != args["indim"]:
        return f"{name} takes (indim, bands, frames) with indim {args['indim']}, the items are {tuple(shape)}"
    if min(shape[1:]) < _LEAST_SIDE:
        return f"{name} takes at least {_LEAST_SIDE} bands and frames, the items are {tuple(shape)}"
    if args["body"] == "resnet" and args["weights"] is not None:
        return f"weights is {args['weights']!r}, but the body resnet has none"
    return dropout_problem(args["dropout"])
