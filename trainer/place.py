"""A place within an epoch, from which a resumed run goes on, and how an epoch comes to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from utils.arguments import matches
from utils.distributed import gather, rank


@dataclass(frozen=True)
class Place:
    """How far an epoch has come, between two steps of the optimizer.

    Attributes:
        items: how many items all processes have drawn of it.
        output: ``(n, classes)`` float32 on the CPU: the model's output for them, for the figures of the epoch.
        target: ``(n,)`` int64 on the CPU: their classes.
    """

    items: int
    output: Tensor
    target: Tensor

    @classmethod
    def start(cls, n_classes: int) -> Place:
        """Before the first batch."""
        return cls(0, torch.empty(0, n_classes), torch.empty(0, dtype=torch.int64))

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"items": self.items, "output": self.output, "target": self.target}

    @classmethod
    def from_dict(cls, values: Any, n_items: int, n_classes: int) -> Place:
        """What `to_dict` gave.

        Args:
            n_items: of the epoch.

        Raises:
            ValueError: it is not of an epoch of this run; the message is a clause.
        """
        fits = isinstance(values, dict) and values.keys() >= {"items", "output", "target"}
        if not fits or not matches(values["items"], int) or not 0 < values["items"] <= n_items:
            raise ValueError(f"its place is not within an epoch of {n_items} items")
        output, target = values["output"], values["target"]
        for name, tensor, dtype, ndim in (("output", output, torch.float32, 2), ("target", target, torch.int64, 1)):
            if not isinstance(tensor, Tensor) or (tensor.dtype, tensor.ndim) != (dtype, ndim):
                raise ValueError(f"the {name} of its place is no such tensor")
        if output.shape != (len(target), n_classes) or ((target < 0) | (target >= n_classes)).any():
            raise ValueError(f"its place has outputs {tuple(output.shape)} and {len(target)} targets")
        return cls(values["items"], output, target)


class Seen(NamedTuple):
    """A batch after its backward pass.

    Attributes:
        output: ``(batch, classes)`` float32, detached.
        target: ``(batch,)`` int64.
        index: ``(batch,)`` int64: the items' numbers in the data set, on the CPU.
        loss: scalar, detached.
    """

    output: Tensor
    target: Tensor
    index: Tensor
    loss: Tensor


class Journal:
    """The outputs and classes of an epoch's training items so far, for its figures.

    Args:
        place: where the epoch begins in this process.
    """

    def __init__(self, place: Place) -> None:
        # What came before this process began is in its place; of several processes, the first one carries it.
        keep = slice(None) if rank() == 0 else slice(0)
        self._outputs, self._targets = [place.output[keep]], [place.target[keep]]

    def add(self, batches: list[Seen]) -> None:
        """Batches whose step was made."""
        self._outputs += [batch.output for batch in batches]
        self._targets += [batch.target for batch in batches]

    def place(self, items: int) -> Place:
        """Where the epoch is, with what all processes have seen; all of them have to call this.

        Args:
            items: how many all processes have drawn.
        """
        # On a GPU's own memory until here: each copy would make it wait.
        device = self._outputs[-1].device
        output = gather(torch.cat([part.to(device) for part in self._outputs]))
        target = gather(torch.cat([part.to(device) for part in self._targets]))
        return Place(items, output, target)
