"""The light CNN of the SPRSound challenge paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures

SIDE = 224
_FEATURES = 96 * 10 * 10


@architectures.register()
class LightCNN(BaseModel):
    """Four unpadded convolutions, each with ReLU and 2x2 max pooling, then dropout and one linear layer.

    224 -> 108 -> 51 -> 23 -> 10 pixels a side, so the linear layer sees 96 * 10 * 10 = 9600 features.
    Source: arXiv 2208.13943. The paper ends in a softmax; here the loss has it, and the output is logits.

    Args:
        label_dim: number of classes.
        indim: channels of the input.
    """

    def __init__(self, label_dim: int, indim: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = indim
        for width, kernel in ((32, 9), (64, 7), (96, 5), (96, 3)):
            # The paper has ReLU, then pooling. The other way round gives the same numbers (both are monotonic) and
            # spares three quarters of the ReLU's work.
            layers += [nn.Conv2d(channels, width, kernel), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.0325)
        self.classifier = nn.Linear(_FEATURES, label_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of pictures ``(batch, indim, 224, 224)``."""
        return self.classifier(self.dropout(self.features(x).flatten(1)))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        wanted = (args["indim"], SIDE, SIDE)
        if tuple(shape) != wanted:
            return f"LightCNN takes (indim, {SIDE}, {SIDE}) = {wanted}, the items are {tuple(shape)}"
        return None
