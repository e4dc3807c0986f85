"""A classifier of whole recordings that hears what is in each frame, for the input `multimel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from base.base_model import BaseModel, Detailed
from model import architectures
from model.detail_losses import FRAME_DIM
from model.ranges import dropout_problem
from model.span_body import Body, SpanBody, span_problem
from utils.errors import UserError

# A logit that stands for "no".
_NO = -20.0
# What every body's strides divide.
_STRIDE = 32


@architectures.register()
class RecordingNet(BaseModel):
    """A small network for recordings, which detects events on its way.

    A `SpanBody` gives steps in time. A linear layer tells for each step what is heard in it (in training this is
    compared with the annotated events); another one what weight it gets. The classes follow from the mean, the
    maximum and the weighted mean of the steps over the recording, and from the maximum and the mean of what is heard
    (cf. attention pooling, Ilse et al. 2018, arXiv 1802.04712).

    Args:
        label_dim: number of classes.
        indim: channels of the input; the last one is 1 in all bands within the recording.
        frame_dim: what a frame is asked for: an event, a continuous sound, a discontinuous sound.
        body, weights, frames_per_step: see `SpanBody`.
        dropout: of the steps before the last layer.

    Raises:
        UserError: see `SpanBody`; or the dropout is no share.
    """

    details = "frames"

    def __init__(
        self,
        label_dim: int,
        indim: int = 4,
        frame_dim: int = FRAME_DIM,
        body: Body = "mn04_as",
        weights: str | None = "hub",
        dropout: float = 0.2,
        frames_per_step: int | None = None,
    ) -> None:
        super().__init__()
        if problem := dropout_problem(dropout):
            raise UserError("arch.args", problem)
        self.body = SpanBody(indim, body, weights, frames_per_step)
        channels = self.body.channels
        self.frames = nn.Linear(channels, frame_dim)
        self.weight = nn.Linear(channels, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(3 * channels + 2 * frame_dim, label_dim)

    def forward(self, x: Tensor) -> Tensor | Detailed:
        """Logits ``(batch, label_dim)`` of ``(batch, indim, bands, frames)``.

        In training with logits ``(batch, frames, k)`` of what is heard in each frame; the batch is cut to its longest
        recording then. In evaluation each recording is cut to its own end, so that what it gives does not depend on
        the others of its batch.
        """
        if torch.jit.is_tracing():
            return self._run(x)[0]
        ends = _ends(x)
        if self.training:
            # A GPU has to wait for the number; but batch normalisation would count all that is cut off.
            cut = x[..., : int(ends.max())]
            logits, heard = self._run(cut)
            frames = _in_frames(heard, cut.shape[3])
            return Detailed(logits, functional.pad(frames, (0, 0, 0, x.shape[3] - cut.shape[3])))
        logits = x.new_empty(len(x), self.head.out_features, dtype=torch.float32)
        for end in ends.unique().tolist():
            logits[ends == end] = self._run(x[ends == end][..., :end])[0]
        return logits

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(batch, label_dim)``, and logits ``(batch, steps, k)`` of what is heard in each step."""
        inside = x[:, -1, :1]
        steps = self.body(x).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            steps = steps.float()
            valid = functional.adaptive_max_pool1d(inside.float(), steps.shape[1]).transpose(1, 2) > 0
            heard = self.frames(steps)
            return self.head(self._pooled(steps, heard, valid)), heard

    def _pooled(self, steps: Tensor, heard: Tensor, valid: Tensor) -> Tensor:
        """``(batch, 3 channels + 2 k)`` of steps ``(batch, steps, channels)`` and of what is heard in each."""
        n_valid = valid.sum(dim=1).clamp(min=1)
        weight = self.weight(steps).masked_fill(~valid, _NO).softmax(dim=1)
        mean = (steps * valid).sum(dim=1) / n_valid
        most = steps.masked_fill(~valid, -torch.inf).amax(dim=1).clamp(min=-1e4)
        of_steps = torch.cat([mean, most, (steps * weight).sum(dim=1)], dim=1)
        loudest = heard.masked_fill(~valid, _NO).amax(dim=1).clamp(-8.0, 8.0) / 4.0
        share = (heard.sigmoid() * valid).sum(dim=1) / n_valid
        return torch.cat([self.dropout(of_steps), loudest, share], dim=1)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if args["frame_dim"] != FRAME_DIM:
            return f"RecordingNet hears {FRAME_DIM} kinds of sounds in a frame, frame_dim is {args['frame_dim']}"
        return span_problem("RecordingNet", args, shape)


def _in_frames(heard: Tensor, frames: int) -> Tensor:
    """``(batch, frames, k)`` of steps ``(batch, steps, k)``, linear between two of them."""
    if heard.device.type == "cpu":
        return functional.interpolate(heard.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)
    # A GPU adds up the gradient of `interpolate` in any order; that of a product is the same in each run.
    steps = heard.new_zeros(heard.shape[1], heard.shape[1]).fill_diagonal_(1.0)
    with torch.autocast(heard.device.type, enabled=False):
        return functional.interpolate(steps[None], size=frames, mode="linear")[0].T @ heard


def _ends(x: Tensor) -> Tensor:
    """``(batch,)`` int64: the frames of each recording, up to a multiple of what the strides divide."""
    counts = (x[:, -1, 0] > 0).sum(dim=1)
    return (-(-counts // _STRIDE) * _STRIDE).clamp(_STRIDE, max(x.shape[3], _STRIDE))
