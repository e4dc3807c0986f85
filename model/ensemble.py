"""Several trained networks as one: the mean of their probabilities."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.weights import without_weights
from utils.arguments import check_arguments
from utils.device import autocast, choose_precision
from utils.errors import UserError

MAX_MEMBERS = 1000


def _member(type: str, args: dict[str, Any], precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32") -> None:
    """What an entry of `members` holds."""


@architectures.register()
class Ensemble(BaseModel):
    """The mean of the probabilities of its members, one after the other. It is written by `train.py --folds`.

    Each member normalises the input as in its own training: `mean` and `std`, buffers ``(members,)``.

    Args:
        label_dim: number of classes.
        members: of each ``{"type": "ResNet18", "args": {...}, "precision": "bf16"}``: an architecture with its
            arguments, and what it is computed in. Their weights come from the checkpoint.
        merged: for each class, those classes of the members that it is made of; their probabilities are added. None:
            the classes are the members' own.
        input_shape: of one item, given by the program.
    """

    def __init__(
        self,
        label_dim: int,
        members: list[dict[str, Any]],
        merged: list[list[int]] | None = None,
        input_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(_make(member, input_shape) for member in members)
        self.merged = merged
        self.precisions = [member.get("precision", "fp32") for member in members]
        self.register_buffer("mean", torch.zeros(len(members)))
        self.register_buffer("std", torch.ones(len(members)))
        self.takes_lengths = any(member.takes_lengths for member in self.members)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logarithms of the mean probabilities ``(batch, label_dim)`` float32.

        Args:
            x: ``(batch, ...)`` float32, not normalised.
            lengths: ``(batch,)`` int64 of waveforms, for the members that take them.
        """
        logs = []
        for member, precision, mean, std in zip(self.members, self.precisions, self.mean, self.std, strict=True):
            own = (x - mean) / std
            with autocast(choose_precision(precision, x.device), x.device):
                output = member(own, lengths) if member.takes_lengths else member(own)
            log = torch.log_softmax(output.float(), dim=1)
            if self.merged:
                log = torch.stack([log[:, own].logsumexp(dim=1) for own in self.merged], dim=1)
            logs.append(log)
        # Not the logarithm of a mean: a class that all members give nothing would be minus infinity.
        return torch.logsumexp(torch.stack(logs), dim=0) - math.log(len(logs))

    def unmerged(self) -> Ensemble:
        """The same, with the classes of the members."""
        result = copy.copy(self)
        result.merged = None
        return result

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        """See `BaseModel`; of the first member that cannot be one."""
        members = args["members"]
        if not 0 < len(members) <= MAX_MEMBERS:
            return f"an ensemble has 1 to {MAX_MEMBERS} members, this has {len(members)}"
        merged = args.get("merged")
        n_classes = args["label_dim"]
        if merged is not None:
            n_classes = sum(map(len, merged))
            each_once = sorted(itertools.chain.from_iterable(merged)) == list(range(n_classes))
            if len(merged) != args["label_dim"] or not each_once or [] in merged:
                return f"merged {merged} does not make {args['label_dim']} classes of all those of the members"
        for number, member in enumerate(members, start=1):
            try:
                _check_member(member, n_classes, shape)
            except UserError as error:
                return f"member {number}: {error.subject} {error.what}"
        return None


def merge(prob: NDArray[np.float32], merged: Sequence[Sequence[int]] | None) -> NDArray[np.float32]:
    """Probabilities ``(items, classes)`` with those of some classes added; see `Ensemble` for `merged`."""
    return prob if merged is None else np.stack([prob[:, list(own)].sum(axis=1) for own in merged], axis=1)


def _make(member: Mapping[str, Any], input_shape: Sequence[int]) -> BaseModel:
    architecture = architectures.lookup(member["type"], "members.type")
    args = without_weights(architecture, member["args"])
    if "input_shape" in inspect.signature(architecture).parameters:
        args["input_shape"] = tuple(input_shape)
    return architecture(**args)


def _check_member(member: Mapping[str, Any], label_dim: int, shape: Sequence[int]) -> None:
    member = check_arguments(_member, member, "members")
    architecture = architectures.lookup(member["type"], "members.type")
    if issubclass(architecture, Ensemble):
        raise UserError("members.type", "is an ensemble itself")
    args = check_arguments(architecture, member["args"], "members.args", filled_in=("input_shape",))
    if args.get("label_dim") != label_dim:
        raise UserError("members.args.label_dim", f"is {args.get('label_dim')}, the ensemble's is {label_dim}")
    if problem := architecture.input_problem(args, shape):
        raise UserError("members.args", problem)
