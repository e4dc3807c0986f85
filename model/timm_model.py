"""Any image network of timm by its name, for transfer learning on pictures of sound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.ranges import dropout_problem
from model.timm_network import classifier_names, create_network, network_problem, stages_of
from utils.errors import UserError

_FREEZE = "arch.args.freeze"
_UNFREEZE = "arch.args.unfreeze_at"
_DECAYS = "expected more than 0 and at most 1, 1 is none"


@architectures.register()
class TimmModel(BaseModel):
    """A network of timm with a new last layer.

    Its stages are timm's own groups of layers: the stem, then each stage of blocks (of a transformer, each block),
    then what stands between them and the last layer, if anything does. The last layer itself is never frozen.

    Args:
        label_dim: number of classes.
        backbone: its name in timm, with or without a tag ("efficientnet_b0", "resnet50.a1_in1k").
        indim: channels of the input. The first convolution of pretrained weights is fitted to them as timm does: for
            one channel it is summed over red, green and blue.
        weights: "hub": those that timm has for that name; or a local file (.safetensors, .pth, .pt) with the state
            dict of that network, last layer included; None gives random numbers.
        dropout: before the last layer.
        freeze: "backbone", all stages, or how many of the first stages are not trained. Their batch normalisation
            keeps its statistics.
        unfreeze_at: epochs, counted from 1, at whose beginning frozen stages are set free, the last ones first and
            each time the same number of them, until with the last epoch named all are free. None keeps them frozen.
        layer_decay: the learning rate of a stage is that of the one behind it times this, above 0 and at most 1; the
            last layer has the optimizer's.

    Raises:
        UserError: timm has no such network; weights were asked for and cannot be had, or do not fit; there are fewer
            stages than are to be frozen, or set free; the dropout or the decay is out of range.
    """

    def __init__(
        self,
        label_dim: int,
        backbone: str,
        indim: int = 1,
        weights: str | None = "hub",
        dropout: float = 0.0,
        freeze: Literal["backbone"] | int | None = None,
        unfreeze_at: list[int] | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        if problem := dropout_problem(dropout):
            raise UserError("arch.args", problem)
        if not 0 < layer_decay <= 1:
            raise UserError("arch.args.layer_decay", f"is {layer_decay}", _DECAYS)
        self.network = create_network(backbone, label_dim, indim, weights, dropout)
        self.stages = stages_of(self.network)
        self.layer_decay = layer_decay
        self._frozen = _checked_freeze(freeze, len(self.stages))
        self._unfreeze_at = _checked_epochs(unfreeze_at, self._frozen)
        self.changes_by_epoch = bool(self._unfreeze_at)
        # What is set free later is trainable already: several processes have to know all that ever is.
        self._freeze_first(self.frozen_stages(math.inf))

    def frozen_stages(self, epoch: float) -> int:
        """How many of the first stages are frozen in an epoch, counted from 1."""
        if not self._unfreeze_at:
            return self._frozen
        left = sum(epoch < number for number in self._unfreeze_at)
        return self._frozen * left // len(self._unfreeze_at)

    def on_epoch(self, epoch: int) -> None:
        """Freeze what is frozen in that epoch, and nothing else."""
        self._freeze_first(self.frozen_stages(epoch))

    def _freeze_first(self, count: int) -> None:
        self._frozen_now = {name for stage in self.stages[:count] for name in stage}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in self._frozen_now)
        self.train(self.training)

    def train(self, mode: bool = True) -> TimmModel:
        """As `nn.Module.train`, but the batch normalisation of frozen stages stays in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms():
            norm.eval()
        return self

    def _frozen_norms(self) -> Iterator[nn.Module]:
        for name, module in self.network.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and f"{name}.weight" in self._frozen_now:
                yield module

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters that are trained in any epoch; with `layer_decay`, a group a stage, the last layer first."""
        named = dict(self.network.named_parameters())
        trained = self.stages[self.frozen_stages(math.inf) :]
        layers = [[*classifier_names(self.network)], *reversed(trained)]
        if self.layer_decay == 1.0:
            return [{"params": [named[name] for layer in layers for name in layer]}]
        return [
            {"params": [named[name] for name in layer], "lr_scale": self.layer_decay**depth}
            for depth, layer in enumerate(layers)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of pictures ``(batch, indim, freq, time)``."""
        return self.network(x)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 3 or shape[0] != args["indim"]:
            return f"TimmModel takes (indim, freq, time) with indim {args['indim']}, the items are {tuple(shape)}"
        if problem := network_problem(args["backbone"], shape) or dropout_problem(args["dropout"]):
            return problem
        decay = args["layer_decay"]
        return None if 0 < decay <= 1 else f"layer_decay is {decay}, {_DECAYS}"


def _checked_freeze(freeze: str | int | None, stages: int) -> int:
    """How many stages are frozen at first."""
    if freeze is None:
        return 0
    if freeze == "backbone":
        return stages
    if not 0 <= freeze <= stages:
        raise UserError(
            _FREEZE, f"is {freeze}, the backbone has {stages} stages", f'take 0 to {stages}, or "backbone"'
        )
    return freeze


def _checked_epochs(epochs: list[int] | None, frozen: int) -> list[int]:
    if not epochs:
        return []
    if frozen == 0:
        raise UserError(_UNFREEZE, "is set, but nothing is frozen", "set arch.args.freeze")
    if epochs != sorted(set(epochs)) or epochs[0] < 2:
        raise UserError(_UNFREEZE, f"is {epochs}", "name rising epochs; the first that can differ is 2")
    if len(epochs) > frozen:
        raise UserError(_UNFREEZE, f"names {len(epochs)} epochs for {frozen} frozen stages", "name at most as many")
    return list(epochs)
