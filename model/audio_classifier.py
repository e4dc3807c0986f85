"""The small CNN for environmental sounds on mel spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures

# Channels and kernel of each block.
_BLOCKS = ((8, 5), (16, 3), (32, 3), (64, 3))


@architectures.register()
class AudioClassifier(BaseModel):
    """Four strided convolutions, each with ReLU and batch normalisation, then average pooling and one linear layer.

    Convolutions have Kaiming-normal weights (for a slope of 0.1 below zero) and biases of 0. A batch is first brought
    to mean 0 and deviation 1 over all its numbers. In evaluation it is by the mean and the deviation of all batches
    trained on so far: what is predicted for an item must not depend on the others of its batch.
    Source: K. Doshi, "Audio Deep Learning Made Simple: Sound Classification" (2021).

    Args:
        label_dim: number of classes.
        indim: channels of the input.
    """

    def __init__(self, label_dim: int, indim: int = 2) -> None:
        super().__init__()
        # Without momentum: the mean over all batches, which has forgotten what it began with after the first.
        self.normalise = nn.BatchNorm1d(1, affine=False, momentum=None)
        layers: list[nn.Module] = []
        channels = indim
        for width, kernel in _BLOCKS:
            convolution = nn.Conv2d(channels, width, kernel, stride=2, padding=kernel // 2)
            nn.init.kaiming_normal_(convolution.weight, a=0.1)
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(width)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, label_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of spectrograms ``(batch, indim, bands, frames)`` of any size."""
        normalised = self.normalise(x.flatten(1).unsqueeze(1)).view(x.shape)
        return self.classifier(self.pooling(self.features(normalised)).flatten(1))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or shape[0] != args["indim"]:
            wanted = f"(indim, bands, frames) with indim {args['indim']}"
            return f"AudioClassifier takes {wanted}, the items are {tuple(shape)}"
        return None
