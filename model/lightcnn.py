"""The light CNN of the SPRSound challenge paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures

# Channels and kernels of the four convolutions.
_LAYERS = ((32, 9), (64, 7), (96, 5), (96, 3))
# Of the paper's pictures.
_SIDE = 224
# The least side of which a pixel is left, without and with padding.
_LEAST_SIDE = {False: 68, True: 16}


@architectures.register()
class LightCNN(BaseModel):
    """Four unpadded convolutions, each with ReLU and 2x2 max pooling, then dropout and one linear layer.

    224 -> 108 -> 51 -> 23 -> 10 pixels a side, so the linear layer sees 96 * 10 * 10 = 9600 features of a picture as
    the paper has it; of another one as many as are left.
    Source: arXiv 2208.13943. The paper ends in a softmax; here the loss has it, and the output is logits.

    Args:
        label_dim: number of classes.
        indim: channels of the input.
        padded: let only the pooling shrink the picture: for sides of 16 to 67 pixels, of which without padding
            nothing would be left.
        input_shape: of one item, given by the program; by default ``(indim, 224, 224)``.
    """

    def __init__(self, label_dim: int, indim: int = 1, padded: bool = False, input_shape: Sequence[int] = ()) -> None:
        super().__init__()
        freq, time = input_shape[1:] or (_SIDE, _SIDE)
        layers: list[nn.Module] = []
        channels = indim
        for width, kernel in _LAYERS:
            padding = kernel // 2 if padded else 0
            freq, time = ((side + 2 * padding - kernel + 1) // 2 for side in (freq, time))
            # The paper has ReLU, then pooling. The other way round gives the same numbers (both are monotonic) and
            # spares three quarters of the ReLU's work.
            layers += [nn.Conv2d(channels, width, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.0325)
        self.classifier = nn.Linear(channels * freq * time, label_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of pictures ``(batch, indim, freq, time)``."""
        return self.classifier(self.dropout(self.features(x).flatten(1)))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or shape[0] != args["indim"]:
            return f"LightCNN takes (indim, freq, time) with indim {args['indim']}, the items are {tuple(shape)}"
        padded = args["padded"]
        if min(shape[1:]) < (least := _LEAST_SIDE[padded]):
            smaller = "" if padded else f", with padded of {_LEAST_SIDE[True]}x{_LEAST_SIDE[True]}"
            return f"LightCNN takes pictures of at least {least}x{least}{smaller}, the items are {tuple(shape)}"
        return None
