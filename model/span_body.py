"""The convolutional bodies that read spectrograms with a channel that marks a span of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from model.mobilenet import MobileNetAS
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

    Raises:
        UserError: weights were asked for and cannot be had, or the body has none.
    """

    def __init__(self, indim: int, body: Body, weights: str | None) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, indim, freq, time)`` to ``(batch, channels, steps)``, the mean over frequency."""
        return self.layers(self.norm(x)).mean(dim=2)


def span_problem(name: str, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
    """Why a network of this name on a `SpanBody` cannot take items of a shape; None where it can."""
    if len(shape) != 3 or shape[0] != args["indim"]:
        return f"{name} takes (indim, bands, frames) with indim {args['indim']}, the items are {tuple(shape)}"
    if min(shape[1:]) < _LEAST_SIDE:
        return f"{name} takes at least {_LEAST_SIDE} bands and frames, the items are {tuple(shape)}"
    return None
