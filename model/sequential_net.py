"""A network that is written in the config, layer by layer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.layer_kinds import fitted_arguments, read_layer
from model.weights import first_line
from utils.errors import UserError

MAX_LAYERS = 1000
_BYTES = 4  # of a float32
# What layers raise for arguments or shapes that they cannot work with.
_REFUSALS = (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError)


@architectures.register()
class SequentialNet(BaseModel):
    """Layers of torch.nn, one after the other; `model.layer_kinds` has those that there are.

    ``in_features``, ``in_channels``, ``num_features`` and ``num_channels`` may be left out. As in torch.nn, axes are
    counted with that of the batch: ``Flatten`` begins at 1. The last layer gives ``(label_dim,)``, the logits.

    Args:
        label_dim: number of classes.
        layers: of each ``{"type": "Conv2d", "args": {"out_channels": 8, "kernel_size": 3}}``, or just ``"ReLU"``.
        input_shape: of one item, given by the program.

    Raises:
        UserError: the layers do not fit the input, each other or the classes; see `input_problem`.
    """

    def __init__(self, label_dim: int, layers: list, input_shape: Sequence[int]) -> None:
        super().__init__()
        try:
            plan = plan_layers(layers, label_dim, input_shape)
        except UserError as error:
            raise UserError("arch.args", _in_words(error)) from error
        self.layers = nn.Sequential(*(module(**args) for module, args in plan))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of items ``(batch, *input_shape)``."""
        return self.layers(x)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        """See `BaseModel`; of layers that do not fit, the first, with what it takes and what it gets."""
        try:
            plan_layers(args["layers"], args["label_dim"], shape)
        except UserError as error:
            return _in_words(error)
        return None


def plan_layers(
    layers: Sequence[Any], label_dim: int, input_shape: Sequence[int]
) -> list[tuple[type[nn.Module], dict[str, Any]]]:
    """The classes and the arguments of all layers, tried on tensors without content: nothing large is made.

    Raises:
        UserError: says which layer is wrong, and the shapes.
    """
    if not 0 < len(layers) <= MAX_LAYERS:
        raise UserError("layers", f"are {len(layers):,}", f"expected 1 to {MAX_LAYERS:,}")
    batches = _two_batches(tuple(input_shape))
    plan, needed, where = [], 0, ""
    for number, layer in enumerate(layers, start=1):
        shape = tuple(batches[0].shape[1:])
        kind, args, where = read_layer(layer, f"layer {number}")
        args = fitted_arguments(kind, args, shape, where)
        try:
            module, batches = _run(kind.module, args, batches)
        except _REFUSALS as error:
            raise UserError(where, f"cannot take {shape}", _few_words(error)) from error
        if not _keep_items_apart(batches):
            raise UserError(where, "changes the first axis, which is the batch's", "begin at axis 1")
        # Weights and their gradients, and what is kept of one item for the way back.
        needed += _BYTES * (2 * sum(p.numel() for p in module.parameters()) + batches[0][0].numel())
        _refuse_too_large(needed, where)
        plan.append((kind.module, args))
    if (shape := tuple(batches[0].shape[1:])) != (label_dim,):
        raise UserError(f"{where}, the last", f"gives {shape}, the classes need {(label_dim,)}")
    _check_gradient(batches[1])
    return plan


def _two_batches(shape: tuple[int, ...]) -> list[Tensor]:
    """Of one item, as in evaluation, and of two: to notice a layer that reaches over the items of a batch."""
    if not shape or -1 in shape:
        raise UserError("layers", f"take items of one size, these are {shape}", "set data_loader.args.duration")
    try:
        return [torch.empty(size, *shape, device="meta") for size in (1, 2)]
    except _REFUSALS as error:
        raise UserError("layers", f"cannot take items of {shape}") from error


def _run(
    module_class: type[nn.Module], args: Mapping[str, Any], batches: Sequence[Tensor]
) -> tuple[nn.Module, list[Tensor]]:
    with torch.device("meta"), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = module_class(**args)
        alone, together = batches
        together = module(together)
        alone = module.eval()(alone)
    return module, [alone, together]


def _keep_items_apart(batches: Sequence[Tensor]) -> bool:
    alone, together = (tuple(batch.shape) for batch in batches)
    return len(alone) > 1 and alone[0] == 1 and together == (2, *alone[1:])


def _refuse_too_large(needed: int, where: str) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        what = f"up to here the network needs {needed / 2**30:,.1f} GiB, there are {memory / 2**30:,.1f}"
        raise UserError(where, what, "make it smaller")


def _check_gradient(output: Tensor) -> None:
    if not output.requires_grad:
        raise UserError("layers", "have no weights", "add a Linear or a convolution")
    try:
        output.sum().backward()
    except RuntimeError as error:
        what = "pass no gradient back: one with inplace overwrites what the one before it needs"
        raise UserError("layers", what, "leave inplace out") from error


def _few_words(error: BaseException) -> str:
    """What PyTorch says, which may repeat all of an argument."""
    text = first_line(error)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _in_words(error: UserError) -> str:
    return ": ".join(part for part in (error.subject, error.what, error.hint) if part)
