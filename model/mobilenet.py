"""MobileNetV3 for audio, with the AudioSet weights of EfficientAT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.mobilenet_weights import audioset_state
from model.ranges import dropout_problem
from model.weights import load_exactly
from utils.errors import UserError

AUDIOSET_CLASSES = 527
WIDTHS = {"mn04_as": 0.4, "mn10_as": 1.0}
_MIN_SIDE = 32  # the network halves five times
_SQUEEZE = 4


class Block(NamedTuple):
    """One inverted residual: table 1 of the MobileNetV3 paper (arXiv 1905.02244)."""

    kernel: int
    expanded: int
    out: int
    squeezes: bool
    activation: type[nn.Module]
    stride: int


_FIRST = 16
_BLOCKS = (
    Block(3, 16, 16, False, nn.ReLU, 1),
    Block(3, 64, 24, False, nn.ReLU, 2),
    Block(3, 72, 24, False, nn.ReLU, 1),
    Block(5, 72, 40, True, nn.ReLU, 2),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(5, 120, 40, True, nn.ReLU, 1),
    Block(3, 240, 80, False, nn.Hardswish, 2),
    Block(3, 200, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 184, 80, False, nn.Hardswish, 1),
    Block(3, 480, 112, True, nn.Hardswish, 1),
    Block(3, 672, 112, True, nn.Hardswish, 1),
    Block(5, 672, 160, True, nn.Hardswish, 2),
    Block(5, 960, 160, True, nn.Hardswish, 1),
    Block(5, 960, 160, True, nn.Hardswish, 1),
)
_LAST = 960
_HIDDEN = 1280


def divisible(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, but never more than a tenth below it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class SqueezeExcitation(nn.Module):
    """Scales channels by what their means over frequency and time say; the paper squeezes no other axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = divisible(channels // _SQUEEZE)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, freq, time)``, the same shape out."""
        scale = self.fc2(self.fc1(x.mean((2, 3))).relu()).sigmoid()
        return x * scale[:, :, None, None]


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = None
) -> nn.Sequential:
    """Convolution, batch normalisation and, if given, an activation; the border is half a kernel of zeros."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01),
    ]
    if activation:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Widen, filter channel by channel, squeeze and excite, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, spec: Block) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if spec.expanded != inputs:
            layers.append(_convolution(inputs, spec.expanded, 1, activation=spec.activation))
        layers.append(
            _convolution(
                spec.expanded, spec.expanded, spec.kernel, spec.stride, spec.expanded, activation=spec.activation
            )
        )
        if spec.squeezes:
            layers.append(SqueezeExcitation(spec.expanded))
        layers.append(_convolution(spec.expanded, spec.out, 1))
        self.block = nn.Sequential(*layers)
        self.adds = spec.stride == 1 and inputs == spec.out

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, freq, time)`` to ``(batch, spec.out, freq / stride, time / stride)``."""
        return x + self.block(x) if self.adds else self.block(x)


@architectures.register()
class MobileNetAS(BaseModel):
    """MobileNetV3-Large for spectrograms, EfficientAT's `mn04_as` and `mn10_as` (Schmid et al., arXiv 2211.04772).

    Made for the feature `mel32k`, and pretrained on it: 128 mel bands at 32 kHz, 10 s. Other pictures work too; the
    weights then start from what they were not made for. The published head of 527 classes is kept for
    ``label_dim=527`` (AudioSet's classes in its order; the sigmoid is left to the caller); for any other number its
    last layer starts from random numbers, and every other tensor of the file is used.

    Args:
        label_dim: number of classes.
        indim: channels of the input; for more than one, the first convolution is repeated and divided by their
            number, so that channels that are all alike give what one gives.
        model_size: mn04_as has 0.4 times the channels of mn10_as.
        weights: "hub": the AudioSet weights of EfficientAT's release, by its address; or a local file with its state
            dict; None gives random numbers.
        dropout: before the last layer.

    Raises:
        UserError: weights were asked for and cannot be had, or do not fit; or the dropout is no share.
    """

    def __init__(
        self,
        label_dim: int,
        indim: int = 1,
        model_size: Literal["mn04_as", "mn10_as"] = "mn04_as",
        weights: str | None = "hub",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if problem := dropout_problem(dropout):
            raise UserError("arch.args", problem)
        width = WIDTHS[model_size]

        def scaled(channels: int) -> int:
            return divisible(channels * width)

        channels = scaled(_FIRST)
        layers: list[nn.Module] = [_convolution(indim, channels, 3, 2, activation=nn.Hardswish)]
        for spec in _BLOCKS:
            spec = spec._replace(expanded=scaled(spec.expanded), out=scaled(spec.out))
            layers.append(InvertedResidual(channels, spec))
            channels = spec.out
        layers.append(_convolution(channels, scaled(_LAST), 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = scaled(_HIDDEN)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(scaled(_LAST), hidden),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, label_dim),
        )
        self.apply(_initialise)
        if weights is not None:
            self._load_audioset(label_dim, indim, model_size, weights)

    def _load_audioset(self, label_dim: int, indim: int, model_size: str, weights: str) -> None:
        state, path = audioset_state(model_size, weights)
        first = state.get("features.0.0.weight")
        if first is not None and first.ndim == 4 and first.shape[1] == 1:
            state["features.0.0.weight"] = first.repeat(1, indim, 1, 1) / indim
        if label_dim != AUDIOSET_CLASSES:
            head = self.classifier[-1].state_dict()
            state |= {f"classifier.5.{name}": value for name, value in head.items()}
        load_exactly(self, state, path)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of spectrograms ``(batch, indim, mel bands, frames)``."""
        return self.classifier(self.features(x))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or shape[0] != args["indim"]:
            wanted = f"(indim, mel bands, frames) with indim {args['indim']}"
            return f"MobileNetAS takes {wanted}, the items are {tuple(shape)}"
        if min(shape[1:]) < _MIN_SIDE:
            return f"MobileNetAS takes at least {_MIN_SIDE} bands and frames, the items are {tuple(shape)}"
        return dropout_problem(args["dropout"])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)
