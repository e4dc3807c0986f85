"""What the layers of a network make of one item."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from logger.trace import undisturbed

# Where PyTorch defines convolutions, poolings and activations; a subclass of one, as of timm, is one too.
_SHOWN = {f"torch.nn.modules.{name}" for name in ("conv", "pooling", "activation")}
MAX_LAYERS = 60
MAX_CHANNELS = 16


class LayerOutput(NamedTuple):
    """Of one layer for one item.

    Attributes:
        name: of the module, and its class: ``features.0 Conv2d``.
        shape: of all of the output, without the batch axis.
        values: float32; of a picture ``(channels, height, width)`` the first `MAX_CHANNELS` channels.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.float32]


def layer_outputs(model: nn.Module, item: Tensor) -> list[LayerOutput]:
    """What convolution, pooling and activation layers give, in the order in which they run; at most `MAX_LAYERS`.

    The model runs once, in evaluation mode; it and the random generators are afterwards as before. A layer that runs
    several times is shown the first time.

    Args:
        item: ``(1, ...)`` model input.
    """
    found: dict[str, LayerOutput] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and name not in found and len(found) < MAX_LAYERS and 2 <= output.ndim <= 4:
            # A copy: a layer after this one may work in place.
            values = output[0, :MAX_CHANNELS] if output.ndim == 4 else output[0]
            values = values.detach().float().cpu().numpy().copy()
            found[name] = LayerOutput(f"{name} {type(module).__name__}".strip(), tuple(output.shape[1:]), values)

    with undisturbed(model) as device, ExitStack() as hooks:
        for name, module in model.named_modules():
            if any(base.__module__ in _SHOWN for base in type(module).__mro__):
                hooks.callback(module.register_forward_hook(partial(keep, name)).remove)
        model(item.clone().to(device))
    return list(found.values())
