"""Classifiers by the state that a recurrent net is in after the last step of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from base.base_model import BaseModel
from model import architectures

# Of the gate that keeps the state: a sigmoid of 3 is 0.95.
_KEEP = 3.0


class RecurrentClassifier(BaseModel):
    """A recurrent net over the last axis of its input, then one linear layer on its last state.

    A subclass says what the last state is. What stands behind an item's length is never seen: an item's logits depend
    neither on the padding of its batch nor on the other items.

    Args:
        label_dim: number of classes.
        input_dim: numbers a step: 1 for waveforms; of features, bands times channels.
        hidden_dim: numbers of the state.
    """

    takes_lengths = True

    def __init__(self, label_dim: int, input_dim: int = 1, hidden_dim: int = 32) -> None:
        super().__init__()
        self.recurrence = self.make_recurrence(input_dim, hidden_dim)
        self.classifier = nn.Linear(hidden_dim, label_dim)

    def make_recurrence(self, input_dim: int, hidden_dim: int) -> nn.Module:
        """The net, one layer in one direction."""
        raise NotImplementedError

    def last_state(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """The state ``(batch, hidden_dim)`` of each item after its last step.

        Args:
            steps: ``(batch, steps, input_dim)``.
            lengths: ``(batch,)`` int64, at least 1.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits ``(batch, label_dim)``.

        Args:
            x: ``(batch, [channels, [bands,]] steps)``; channels and bands together are the `input_dim`.
            lengths: ``(batch,)`` int64, steps that count; None: all. Of an item without any, its first does.
        """
        steps = x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[-1], device=x.device)
        return self.classifier(self.last_state(steps, lengths.clamp(min=1)))

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if args["hidden_dim"] < 1:
            return f"{cls.__name__} has no state of hidden_dim = {args['hidden_dim']} numbers"
        numbers = math.prod(shape[:-1])
        if numbers != args["input_dim"]:
            name, wanted = cls.__name__, args["input_dim"]
            return f"{name} takes input_dim = {wanted} numbers a step, the items {tuple(shape)} have {numbers}"
        return None


def recur(net: nn.Module, steps: Tensor | PackedSequence) -> Any:
    """What a `torch.nn.LSTM` or `GRU` gives for `steps`; under autocast in bf16 on a GPU, computed in fp32.

    cuDNN's are computed in fp16 under any autocast, and without a scaler the small gradients of fp16 vanish.
    """
    if steps.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16:
        with torch.autocast("cuda", enabled=False):
            return net(steps.float())
    return net(steps)


def packed(steps: Tensor, lengths: Tensor) -> PackedSequence:
    """Sequences ``(batch, steps, ...)`` without what stands behind their lengths ``(batch,)``."""
    return pack_padded_sequence(steps, lengths.cpu(), batch_first=True, enforce_sorted=False)


def with_open_gates(net: nn.LSTM | nn.GRU) -> nn.Module:
    """A net of one layer that begins by keeping what it remembers (Jozefowicz et al., ICML 2015).

    As PyTorch draws it, it forgets half at each step, and learns next to nothing of what came 15 steps before.
    """
    with torch.no_grad():
        # Of the gates, in PyTorch's order, the second is the LSTM's forget gate and the GRU's update gate.
        net.bias_ih_l0[net.hidden_size : 2 * net.hidden_size] += _KEEP
    return net


@architectures.register()
class LSTM(RecurrentClassifier):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with a forget gate, Gers et al. 2000).

    Args:
        label_dim, input_dim, hidden_dim: see `RecurrentClassifier`.
    """

    def make_recurrence(self, input_dim: int, hidden_dim: int) -> nn.Module:
        return with_open_gates(nn.LSTM(input_dim, hidden_dim, batch_first=True))

    def last_state(self, steps: Tensor, lengths: Tensor) -> Tensor:
        _, (hidden, _) = recur(self.recurrence, packed(steps, lengths))
        return hidden[-1]


@architectures.register()
class GRU(RecurrentClassifier):
    """Gated recurrent units (Cho et al., arXiv 1406.1078).

    Args:
        label_dim, input_dim, hidden_dim: see `RecurrentClassifier`.
    """

    def make_recurrence(self, input_dim: int, hidden_dim: int) -> nn.Module:
        return with_open_gates(nn.GRU(input_dim, hidden_dim, batch_first=True))

    def last_state(self, steps: Tensor, lengths: Tensor) -> Tensor:
        _, hidden = recur(self.recurrence, packed(steps, lengths))
        return hidden[-1]
