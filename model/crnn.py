"""A convolutional recurrent network for spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.recurrent import recur

# Channels of each block, and what its pooling takes together: bands, frames.
_BLOCKS = ((32, (2, 2)), (64, (2, 2)), (64, (4, 1)))
_BANDS_POOLED, _FRAMES_POOLED = 16, 4
_DROPOUT = 0.1


@architectures.register()
class CRNN(BaseModel):
    """Three convolutions, each with batch normalisation, ReLU and max pooling; a GRU over time in both directions.

    Of frames, four become one step of the GRU; its last state in either direction goes through dropout and one linear
    layer. After Choi et al., "Convolutional recurrent neural networks for music classification", arXiv 1609.04243,
    with less pooling over time: lung sounds are a hundredth as long as songs.

    Args:
        label_dim: number of classes.
        indim: channels of the input.
        bands: of the input, at least 16.
        hidden_dim: numbers of the state in each direction.
    """

    def __init__(self, label_dim: int, indim: int = 1, bands: int = 64, hidden_dim: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = indim
        for width, pooled in _BLOCKS:
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(pooled)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.recurrence = nn.GRU(channels * (bands // _BANDS_POOLED), hidden_dim, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(_DROPOUT)
        self.classifier = nn.Linear(2 * hidden_dim, label_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of spectrograms ``(batch, indim, bands, frames)``, of 4 frames or more."""
        _, last = recur(self.recurrence, self.features(x).flatten(1, 2).transpose(1, 2))
        return self.classifier(self.dropout(torch.cat([last[0], last[1]], dim=1)))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or tuple(shape[:2]) != (args["indim"], args["bands"]):
            wanted = f"(indim, bands, frames) = ({args['indim']}, {args['bands']}, frames)"
            return f"CRNN takes {wanted}, the items are {tuple(shape)}"
        if args["hidden_dim"] < 1:
            return f"CRNN has no state of hidden_dim = {args['hidden_dim']} numbers"
        if shape[1] < _BANDS_POOLED or shape[2] < _FRAMES_POOLED:
            return f"CRNN pools {_BANDS_POOLED} bands and {_FRAMES_POOLED} frames, the items are {tuple(shape)}"
        return None
