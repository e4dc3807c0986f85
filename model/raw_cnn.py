"""A CNN on the samples themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures

# Channels, kernel and stride of each convolution; each is followed by a pooling of 4 samples.
_BLOCKS = ((128, 80, 4), (128, 3, 1), (256, 3, 1), (512, 3, 1))
_POOLED = 4
_SAMPLES_POOLED = 4 * _POOLED ** len(_BLOCKS)


@architectures.register()
class RawCNN1d(BaseModel):
    """Four 1-D convolutions, each with batch normalisation, ReLU and max pooling; the mean over time; a linear layer.

    The first convolution spans 10 ms at 8 kHz, as a spectrogram's window would.
    Source: M5 of Dai et al., "Very deep convolutional neural networks for raw waveforms", arXiv 1610.00087, here with
    padded convolutions.

    Args:
        label_dim: number of classes.
        indim: channels of the waveforms.
        samples: of the window that is classified: the duration of the data loader at its rate.
    """

    def __init__(self, label_dim: int, indim: int = 1, samples: int = 10_000) -> None:
        super().__init__()
        self.indim, self.samples = indim, samples
        layers: list[nn.Module] = []
        channels = indim
        for width, kernel, stride in _BLOCKS:
            convolution = nn.Conv1d(channels, width, kernel, stride, padding=(kernel - stride + 1) // 2, bias=False)
            layers += [convolution, nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.MaxPool1d(_POOLED)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, label_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of waveforms ``(batch, samples)``, or ``(batch, indim, samples)``."""
        return self.classifier(self.features(x.view(len(x), self.indim, self.samples)).mean(dim=-1))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        indim, samples = args["indim"], args["samples"]
        wanted = (samples,) if indim == 1 else (indim, samples)
        if tuple(shape) != wanted:
            hint = "data_loader.args.duration times rate gives the samples"
            return f"RawCNN1d takes a window of {wanted}, the items are {tuple(shape)}: {hint}"
        if samples < _SAMPLES_POOLED:
            return f"RawCNN1d pools {_SAMPLES_POOLED} samples, a window has {samples}"
        return None
