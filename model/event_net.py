"""Classifiers of an event in its surroundings, the input `multimel_event`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from base.base_model import BaseModel, Detailed
from model import architectures
from model.detail_losses import FINE_DIM
from model.ranges import dropout_problem
from model.span_body import Body, SpanBody, span_problem
from utils.errors import UserError


class _EventClassifier(BaseModel):
    """A `SpanBody`, the mean and the maximum over time, a linear layer."""

    def __init__(
        self,
        outputs: int,
        indim: int,
        body: Body,
        weights: str | None,
        dropout: float,
        frames_per_step: int | None,
    ) -> None:
        super().__init__()
        if problem := dropout_problem(dropout):
            raise UserError("arch.args", problem)
        self.body = SpanBody(indim, body, weights, frames_per_step)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * self.body.channels, outputs))

    def _logits(self, x: Tensor) -> Tensor:
        steps = self.body(x)
        return self.head(torch.cat([steps.mean(dim=2), steps.amax(dim=2)], dim=1))


@architectures.register()
class EventNet(_EventClassifier):
    """A small network for events: the mean and the maximum over time of a convolutional body, and a linear layer.

    Args:
        label_dim: number of classes.
        indim: channels of the input; the last one of `multimel_event` is 1 within the event.
        body, weights, frames_per_step: see `SpanBody`.
        dropout: before the last layer.

    Raises:
        UserError: see `SpanBody`; or the dropout is no share.
    """

    def __init__(
        self,
        label_dim: int,
        indim: int = 4,
        body: Body = "resnet",
        weights: str | None = None,
        dropout: float = 0.2,
        frames_per_step: int | None = None,
    ) -> None:
        super().__init__(label_dim, indim, body, weights, dropout, frames_per_step)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of ``(batch, indim, bands, frames)``."""
        return self._logits(x)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        return span_problem("EventNet", args, shape)


@architectures.register()
class FineEventNet(_EventClassifier):
    """`EventNet` for normal against adventitious, that learns which adventitious sound it is.

    It tells the fine classes apart, of which the first is normal, and the adventitious ones count together: the
    logits are the first one and the logarithm of the sum of the exponentials of the others.

    Args:
        label_dim: 2.
        fine_dim: number of fine classes, 7 in SPRSound.
        indim, body, weights, dropout, frames_per_step: see `EventNet`.

    Raises:
        UserError: see `EventNet`.
    """

    details = "fine"

    def __init__(
        self,
        label_dim: int = 2,
        fine_dim: int = FINE_DIM,
        indim: int = 4,
        body: Body = "resnet",
        weights: str | None = None,
        dropout: float = 0.2,
        frames_per_step: int | None = None,
    ) -> None:
        super().__init__(fine_dim, indim, body, weights, dropout, frames_per_step)

    def forward(self, x: Tensor) -> Tensor | Detailed:
        """Logits ``(batch, 2)`` of ``(batch, indim, bands, frames)``; in training with the fine ones."""
        fine = self._logits(x)
        logits = torch.stack([fine[:, 0], fine[:, 1:].logsumexp(dim=1)], dim=1)
        return Detailed(logits, fine) if self.training else logits

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if (args["label_dim"], args["fine_dim"]) != (2, FINE_DIM):
            given = f"{args['label_dim']} and {args['fine_dim']}"
            return f"FineEventNet has 2 classes and {FINE_DIM} fine ones, not {given}"
        return span_problem("FineEventNet", args, shape)
