"""A residual network of 0.7 million parameters, the body of `EventNet` and `RecordingNet`."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (24, 48, 96, 192)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to their input (He et al. 2015, arXiv 1512.03385).

    Where the shape changes, the input goes through a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, freq, time)`` to ``(batch, outputs, freq / stride, time / stride)``."""
        return self.activation(self.block(x) + self.shortcut(x))


def small_resnet(indim: int) -> tuple[nn.Sequential, int]:
    """A 5x5 convolution of stride 2 and one block each of 24, 48, 96 and 192 channels, all but the first halving.

    Returns:
        ``(batch, indim, freq, time)`` to ``(batch, 192, freq / 16, time / 16)``, and the 192.
    """
    first = WIDTHS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(indim, first, 5, 2, 2, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
    ]
    for inputs, outputs in zip((first, *WIDTHS), WIDTHS, strict=False):
        layers.append(BasicBlock(inputs, outputs, 1 if inputs == outputs else 2))
    return nn.Sequential(*layers), WIDTHS[-1]
