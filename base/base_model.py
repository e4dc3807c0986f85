"""The base class of all architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn


class Detailed(NamedTuple):
    """What a model with `details` gives in training mode.

    Attributes:
        logits: ``(batch, label_dim)``, as in evaluation mode.
        details: "fine": logits of the fine classes ``(batch, fine)``; "frames": logits ``(batch, frames, k)``.
    """

    logits: Tensor
    details: Tensor


class BaseModel(nn.Module):
    """A classifier: ``forward`` takes a batch of model input and returns logits ``(batch, label_dim)``."""

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        """Why this architecture with these arguments cannot take items of this shape; None where it can.

        Called before anything is built, so that a config that cannot work costs no time.

        Args:
            args: the arguments of the constructor as the config gives them, defaults filled in.
            shape: the shape of one item, without the batch axis.
        """
        return None

    # Whether `forward` is called as ``forward(x, lengths)``: ``(batch,)`` int64, how many steps of each item's last
    # axis count; those behind are padding. It has to have a default of None: all count, as in features.
    takes_lengths: bool = False

    # What it tells of an item beside its class, for a loss of the same `details`: "fine", logits of finer classes;
    # "frames", logits of what is heard in each frame; None, nothing. With any, `forward` returns `Detailed` in
    # training mode, and the logits alone in evaluation mode.
    details: str | None = None

    # Whether `on_epoch` changes which parameters are trained: several processes have to look for those then.
    changes_by_epoch: bool = False

    # Whether `fit` takes all training items at once, in place of steps of an optimizer: the run has one epoch then.
    fits_at_once: bool = False

    def fit(self, inputs: Tensor, target: Tensor, groups: np.ndarray) -> None:
        """Fit the model, where `fits_at_once` says so. What it learns has to be in its buffers, for the checkpoint.

        An empty buffer ``(0,)`` may come out of any length; loading it is then for the model to do.

        Args:
            inputs: ``(items, ...)`` float32.
            target: ``(items,)`` int64 class indices, on the CPU.
            groups: ``(items,)`` str: items of one group (a patient) stay together in a split of them.

        Raises:
            UserError: it cannot be fitted on these.
        """
        raise NotImplementedError

    def resized(self, state: Mapping[str, Tensor], args: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The weights of a network of the same architecture, for input of this one's size: as they are, unless
        an architecture knows better.

        Args:
            state: by name.
            args: of that network's constructor, defaults filled in.
        """
        return state

    def on_epoch(self, epoch: int) -> None:
        """Called before an epoch's training, also where a resumed run begins. The same number does the same always.

        Args:
            epoch: counted from 1.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer gets: all trainable parameters in one group, unless an architecture says otherwise.

        A group's ``lr_scale``, where it has one, multiplies the learning rate of the config for that group.
        """
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def __str__(self) -> str:
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return f"{super().__str__()}\nTrainable parameters: {trainable:,}"
