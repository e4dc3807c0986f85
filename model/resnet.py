"""ResNet-18 of timm, for one or more input channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from base.base_model import BaseModel
from model import architectures
from model.weights import CONFIG_KEY, hub_files, load_exactly, local_path, read_state_dict
from utils.errors import UserError

_MIN_SIDE = 32  # the network halves five times


@architectures.register()
class ResNet18(BaseModel):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385), timm's implementation.

    ImageNet weights are fitted to `indim` channels the way timm does (summed over red, green and blue for one
    channel) and lose their head of 1000 classes.

    Args:
        label_dim: number of classes.
        indim: channels of the input.
        pretrained: start from ImageNet weights.
        weights: where these come from: "hub", or a local file (.safetensors, .pth, .pt) with the state dict of
            timm's resnet18; None gives random numbers.

    Raises:
        UserError: weights were asked for and cannot be had, or do not fit, or a file is named but not `pretrained`.
    """

    def __init__(self, label_dim: int, indim: int = 1, pretrained: bool = True, weights: str | None = "hub") -> None:
        super().__init__()
        import timm

        if weights not in (None, "hub") and not pretrained:
            what = f"is {weights!r}, but pretrained is false"
            raise UserError(CONFIG_KEY, what, "set pretrained to true, or leave it out")
        self.network = timm.create_model("resnet18", pretrained=False, in_chans=indim, num_classes=label_dim)
        if pretrained and weights is not None:
            self._load_imagenet(indim, weights)

    def _load_imagenet(self, indim: int, weights: str) -> None:
        import timm
        from timm.models import adapt_input_conv

        if weights == "hub":
            (path,) = hub_files(timm.get_pretrained_cfg("resnet18").hf_hub_id, ["model.safetensors"])
        else:
            path = local_path(weights)
        state = {name: value for name, value in read_state_dict(path).items() if not name.startswith("fc.")}
        first = state.get("conv1.weight")
        if first is not None and first.ndim == 4 and first.shape[1] == 3:
            state["conv1.weight"] = adapt_input_conv(indim, first)
        head = {f"fc.{name}": value for name, value in self.network.fc.state_dict().items()}
        load_exactly(self.network, state | head, path)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of pictures ``(batch, indim, freq, time)``."""
        return self.network(x)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or shape[0] != args["indim"]:
            return f"ResNet18 takes (indim, freq, time) with indim {args['indim']}, the items are {tuple(shape)}"
        if min(shape[1:]) < _MIN_SIDE:
            return f"ResNet18 takes pictures of at least {_MIN_SIDE}x{_MIN_SIDE}, the items are {tuple(shape)}"
        return None
