"""The layers of torch.nn that a config may name, and whether one takes what it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.arguments import check_arguments
from utils.errors import UserError, nearest
from utils.registry import Registry

_FLAT, _LINE, _PICTURE = ("features",), ("channels", "length"), ("channels", "height", "width")

# No network that runs has a larger number, and PyTorch's own arithmetic of sizes does not overflow below it.
_LARGEST = 2**31 - 1
_FROM_ONE = {"in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "dilation"}
_FROM_ONE |= {"groups", "output_size", "divisor_override", "normalized_shape", "num_parameters"}
_FROM_ONE |= {"num_features", "num_groups", "num_channels"}
# What is not a config's to say: the program chooses the device and the precision, and a layer gives one tensor.
_NOT_ASKED = ("device", "dtype", "return_indices")


class LayerKind(NamedTuple):
    """A layer and what it takes.

    Attributes:
        module: the class.
        takes: the axes of one item, by name; one of these. Empty: any.
        size: the argument that has to be the size of the first axis, and may be left out.
    """

    module: type[nn.Module]
    takes: tuple[tuple[str, ...], ...] = ()
    size: str = ""


# The only names that a config may use.
layer_kinds: Registry = Registry("layer")
for _kind in (
    LayerKind(nn.Linear, (_FLAT,), "in_features"),
    LayerKind(nn.Conv1d, (_LINE,), "in_channels"),
    LayerKind(nn.Conv2d, (_PICTURE,), "in_channels"),
    LayerKind(nn.BatchNorm1d, (_FLAT, _LINE), "num_features"),
    LayerKind(nn.BatchNorm2d, (_PICTURE,), "num_features"),
    LayerKind(nn.InstanceNorm1d, (_LINE,), "num_features"),
    LayerKind(nn.InstanceNorm2d, (_PICTURE,), "num_features"),
    LayerKind(nn.GroupNorm, (_FLAT, _LINE, _PICTURE), "num_channels"),
    *(LayerKind(m, (_LINE,)) for m in (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)),
    *(LayerKind(m, (_PICTURE,)) for m in (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)),
    LayerKind(nn.Dropout1d, (_LINE,)),
    LayerKind(nn.Dropout2d, (_PICTURE,)),
    *(LayerKind(m) for m in (nn.Dropout, nn.Flatten, nn.Unflatten, nn.LayerNorm)),
    *(LayerKind(m) for m in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish)),
    *(LayerKind(m) for m in (nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish)),
):
    layer_kinds.add(_kind.module.__name__, _kind)


def read_layer(layer: Any, where: str) -> tuple[LayerKind, dict[str, Any], str]:
    """The kind of a layer, its arguments as they stand in the config, and its name for messages.

    Args:
        layer: ``"ReLU"``, or ``{"type": "Conv2d", "args": {...}}``.
        where: "layer 4".

    Raises:
        UserError: it is neither, or there is no such layer.
    """
    layer = {"type": layer} if isinstance(layer, str) else layer
    if not isinstance(layer, Mapping) or "type" not in layer:
        hint = 'expected a name such as "ReLU", or {"type": "Conv2d", "args": {...}}'
        raise UserError(where, f"is {_short(layer)}", hint)
    if unknown := [key for key in layer if key not in ("type", "args")]:
        raise UserError(where, f"has the unknown key {unknown[0]!r}", nearest(unknown[0], ("type", "args")))
    kind = layer_kinds.lookup(layer["type"], where)
    where = f"{where} ({layer['type']})"
    args = layer.get("args", {})
    if not isinstance(args, Mapping):
        raise UserError(where, f"its args are {_short(args)}", "expected an object")
    return kind, {name: tuple(v) if isinstance(v, list) else v for name, v in args.items()}, where


def fitted_arguments(kind: LayerKind, args: Mapping[str, Any], shape: Sequence[int], where: str) -> dict[str, Any]:
    """The arguments of a layer for items of this shape; the size of its input is filled in.

    Raises:
        UserError: an argument is wrong, or the layer takes items of another shape; names both.
    """
    filled = {kind.size: shape[0], **args} if kind.size and shape else dict(args)
    # Some activations have no constructor of their own, only that of all modules, which names no argument.
    signature = kind.module if kind.module.__init__ is not nn.Module.__init__ else _no_arguments
    check_arguments(signature, filled, where, filled_in=_NOT_ASKED)
    _check_ranges(filled, where)
    if issubclass(kind.module, _BatchNorm) and filled.get("track_running_stats") is False:
        what = "keeps no statistics, and would normalise an item by the others of its batch in evaluation too"
        raise UserError(where, what, "leave track_running_stats out")
    fits = not kind.takes or any(len(axes) == len(shape) for axes in kind.takes)
    if fits and (not kind.size or filled[kind.size] == shape[0]):
        return filled
    if not fits:
        hint = "Flatten before it" if max(map(len, kind.takes)) < len(shape) else "Unflatten before it"
    else:
        hint = f"leave {kind.size} out, or set it to {shape[0]}"
    raise UserError(where, f"takes {_taken(kind, args)}, gets {tuple(shape)}", hint)


def _no_arguments() -> None:
    """Has the signature of a layer without arguments."""


def _check_ranges(args: Mapping[str, Any], where: str) -> None:
    for name, value in args.items():
        least = 1 if name in _FROM_ONE else 0 if name == "padding" else -_LARGEST
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and not least <= number <= _LARGEST:
                bound = f"at least {least}" if number < least else f"at most {_LARGEST}"
                raise UserError(where, f"its {name} is {_short(number)}", f"expected {bound}")


def _taken(kind: LayerKind, args: Mapping[str, Any]) -> str:
    """The shapes that a layer takes, in words: ``(32, height, width)``."""
    texts = []
    for axes in kind.takes:
        first, *others = axes
        texts.append(", ".join([str(args.get(kind.size, first)), *others]) + ("" if others else ","))
    return " or ".join(f"({text})" for text in texts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
