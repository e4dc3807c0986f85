"""What every feature method is: a batched function of audio, its parameters, and how its result is stored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_loader.features.common import zero_behind
from utils.arguments import check_arguments
from utils.device import choose_precision
from utils.registry import Registry

methods: Registry = Registry("feature method", package="data_loader.features")


@dataclass(frozen=True)
class Feature:
    """A registered feature method.

    Calling it computes the feature of one waveform or of a batch of them.

    Attributes:
        name: the name in `preprocess.py --method` and in a config.
        compute: the function of a batch, ``compute(waveforms, rate, lengths, **params)``.
        unit_range: the values lie in [0, 1]; they are stored as 8-bit integers.
        repeats: the first axis repeats one channel this many times; the store keeps it once.
        batch_size: how many items to compute at once, at most.
        batch_seconds: how many seconds of audio to compute at once on a CPU: few enough that what lies between the
            steps stays in the processor's cache.
        in_context: it sees an item's whole recording and where in it the item is:
            ``compute(waveforms, rate, lengths, spans, **params)``.
        tasks: that `preprocess.py` computes it for, unless told otherwise.
        span_hop_ms: of a feature whose last channel is 1 within a span of time, the item's or the recording's, and
            0 around it: milliseconds from one frame to the next. None for all others.
        resamples: it brings any audio to a rate of its own. What the others give depends on the rate: a store has one
            rate, and all audio is brought to it first.
    """

    name: str
    compute: Callable[..., Tensor]
    unit_range: bool = False
    repeats: int = 1
    batch_size: int = 32
    batch_seconds: float = 320.0
    in_context: bool = False
    tasks: tuple[int, ...] = (1, 2)
    span_hop_ms: float | None = None
    resamples: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their default values: the keyword-only arguments of `compute`."""
        parameters = inspect.signature(self.compute).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def checked(self, params: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All parameters, the given ones over the defaults.

        Raises:
            UserError: an unknown parameter or a value of another type; names `where` (a flag or a config key).
        """
        return check_arguments(self.compute, params, where, keyword_only=True)

    def settled(self, params: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
        """The parameters to compute with and to record: a precision of "auto" becomes what it means on the device."""
        if "precision" not in params:
            return dict(params)
        return {**params, "precision": choose_precision(params["precision"], torch.device(device))}

    def __call__(
        self,
        waveform: Tensor,
        rate: int,
        lengths: Tensor | None = None,
        spans: Tensor | None = None,
        **params: Any,
    ) -> Tensor:
        """Compute the feature.

        Args:
            waveform: float, ``(samples,)`` or ``(batch, samples)``, nominal range [-1, 1], mono.
            rate: samples a second, of the whole batch.
            lengths: ``(batch,)`` integers, the samples that count in each row; what lies behind is ignored, so
                that an item's feature does not depend on the batch it is in. All of them by default.
            spans: ``(batch, 2)`` int64, the first sample of each item in its recording and the one behind its last,
                for a method that is `in_context`; all of the waveform by default.
            params: parameters of the method, see `defaults`.

        Returns:
            float32, of the method's shape for ``(samples,)``, with a first axis ``batch`` otherwise. Finite for
            finite input, silence and constants included.

        Raises:
            ValueError: the waveform has no samples, another number of axes, or is not floating point.
        """
        if waveform.ndim not in (1, 2) or waveform.shape[-1] == 0 or not waveform.is_floating_point():
            raise ValueError(f"need a float waveform (samples,) or (batch, samples), got {tuple(waveform.shape)}")
        batch = torch.atleast_2d(waveform).float()
        if lengths is None:
            lengths = torch.full((len(batch),), batch.shape[1], dtype=torch.int64, device=batch.device)
        else:
            lengths = lengths.to(batch.device, torch.int64)
            batch = zero_behind(batch[:, : int(lengths.max())].clone(), lengths)
        if self.in_context:
            if spans is None:
                spans = torch.stack([torch.zeros_like(lengths), lengths], dim=1)
            result = self.compute(batch, rate, lengths, spans.to(batch.device), **params)
        else:
            result = self.compute(batch, rate, lengths, **params)
        return result if waveform.ndim == 2 else result[0]


def register_feature(
    name: str,
    *,
    unit_range: bool = False,
    repeats: int = 1,
    batch_size: int = 32,
    batch_seconds: float = 320.0,
    in_context: bool = False,
    tasks: tuple[int, ...] = (1, 2),
    span_hop_ms: float | None = None,
    resamples: bool = False,
) -> Callable[[Callable[..., Tensor]], Feature]:
    """Decorator: make a function of a batch a feature method.

    The function takes ``(waveforms (batch, samples) float32 zero behind each length, rate, lengths (batch,) int64)``
    and, keyword-only, its parameters with their defaults; it returns ``(batch, ...)`` float32. See `Feature` for the
    arguments.
    """

    def decorate(function: Callable[..., Tensor]) -> Feature:
        feature = Feature(
            name, function, unit_range, repeats, batch_size, batch_seconds, in_context, tasks, span_hop_ms, resamples
        )
        methods.add(name, feature)
        return feature

    return decorate
