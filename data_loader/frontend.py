"""From a batch as loaded to what the model sees, on the model's device."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.augment import Augmentation, place
from data_loader.batching import similar_rows
from data_loader.encoding import decode
from data_loader.features import Feature, methods
from data_loader.features.common import zero_behind
from utils.arguments import check_arguments
from utils.errors import UserError
from utils.threads import thread_map

_SPRSOUND_RATE = 8000


@dataclass(frozen=True)
class InputSpec:
    """Everything needed to make a model's input of audio again, kept in a checkpoint.

    Attributes:
        method: the feature method; None feeds waveforms to the model.
        params: its parameters.
        input_dir: the feature store's folder; None computes features in the step.
        shape: of one item of model input; the samples of a waveform without fixed duration are -1.
        channels: of the waveforms; 1 averages those of a file.
        mean, std: of the training items; the input is normalised by them. 0 and 1 leave it as it is.
        rate: samples a second of the waveforms that the model takes or that its features are computed from; None for
            stored features of a method with a rate of its own.
        duration: seconds to which waveforms are cut or padded; None keeps them whole.
        weights: a digest of the weights of the method's network, if it has one.
    """

    method: str | None
    params: dict[str, Any] = field(default_factory=dict)
    input_dir: str | None = None
    shape: tuple[int, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    rate: int | None = None
    duration: float | None = None
    weights: str | None = None
    channels: int = 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a checkpoint."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """What `to_dict` gave.

        Raises:
            UserError: a value is missing, unknown or of another type or range.
        """
        given = check_arguments(cls, values, "input")
        spec = cls(**given | {"shape": tuple(given["shape"])})
        if spec.method is not None:
            feature = methods.lookup(spec.method, "input.method")
            spec = replace(spec, params=feature.checked(spec.params, "input.params"))
            if spec.input_dir is not None:
                spec = replace(spec, rate=rate_of_features(feature, spec.rate))
        if spec.weights is not None and "weights" not in spec.params:
            raise UserError("input.weights", f"is {spec.weights!r}, and the features are of no network")
        if (spec.rate is None and spec.input_dir is None) or (spec.rate is not None and spec.rate < 1):
            raise UserError("input.rate", f"is {spec.rate}")
        if spec.input_dir is not None and spec.method is None:
            raise UserError("input.method", "is missing")
        if spec.input_dir is not None and spec.duration is not None:
            raise UserError("input.duration", f"is {spec.duration}, of stored features")
        if spec.channels < 1:
            raise UserError("input.channels", f"is {spec.channels}")
        if spec.std <= 0 or (spec.duration is not None and spec.duration <= 0):
            raise UserError("input", f"has the deviation {spec.std} and the duration {spec.duration}")
        return spec


def rate_of_features(feature: Feature, rate: int | None) -> int | None:
    """Samples a second of the audio that stored features were computed from; None if the method has its own rate.

    Args:
        rate: as the store or the checkpoint says; None in those of earlier versions, which are of SPRSound's audio.
    """
    return None if feature.resamples else rate or _SPRSOUND_RATE


class Frontend(nn.Module):
    """Decodes stored features or computes them from waveforms, normalises, and augments in training mode.

    Args:
        spec: what the input is.
        augmentation: applied when the module is in training mode; None applies none.
    """

    def __init__(self, spec: InputSpec, augmentation: Augmentation | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.augmentation = augmentation or Augmentation()
        self._feature: Feature | None = methods[spec.method] if spec.method else None

    def forward(self, data: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Model input of one batch.

        Args:
            data: ``(batch, ...)`` as in `Batch`: stored features, or waveforms ``(batch, [channels,] samples)``.
            lengths: ``(batch,)`` for waveforms; None for stored features.

        Returns:
            ``(batch, *spec.shape)`` float32.
        """
        return self.with_lengths(data, lengths)[0]

    def with_lengths(self, data: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """`forward`, and how many samples of each waveform count ``(batch,)`` int64; None for features."""
        if lengths is not None and self._feature is None:
            return self._augmented(data, lengths)
        return self._features(data, lengths), None

    def _features(self, data: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is not None:
            features = self._computed(data, lengths)
        else:
            features = decode(data)
        if (self.spec.mean, self.spec.std) != (0.0, 1.0):
            features = (features - self.spec.mean) / self.spec.std
        if self.training:
            marked = self._feature.span_hop_ms is not None
            features = (self.augmentation.marked if marked else self.augmentation.spectrogram)(features)
        repeats = self._feature.repeats if lengths is None and self._feature else 1
        # The store keeps a repeated channel once, and so all before this was done once.
        return features.expand(-1, repeats, *features.shape[2:]) if repeats > 1 else features

    def _augmented(
        self, waveforms: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Waveforms, cut to the duration where the data set left them whole, and their lengths.

        Features are of the whole duration: the zeros that fill up a shorter item count. If they did so where it is
        placed at random alone, training would see other features than evaluation.
        """
        spec, augmentation = self.spec, self.augmentation
        samples = round(spec.duration * spec.rate) if spec.duration else 0
        fills = samples > 0 and self._feature is not None
        if samples and self.training and augmentation.place:
            waveforms, lengths = place(waveforms, lengths, samples, generator)
            # Before the augmentation, which may then move a sound through all of the duration.
            lengths = torch.full_like(lengths, samples) if fills else lengths
        elif samples and waveforms.shape[-1] > samples:
            waveforms, lengths = waveforms[..., :samples], lengths.clamp(max=samples)
        if self.training:
            waveforms = augmentation.waveform(waveforms, lengths, generator)
        return _filled_up(waveforms, lengths, samples) if fills else (waveforms, lengths)

    @torch.no_grad()
    def _computed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Features of waveforms: on a GPU of all at once, on a CPU of few of similar length at a time."""
        spec, feature = self.spec, self._feature
        if waveforms.device.type != "cpu":
            return _by_channel(feature, *self._augmented(waveforms, lengths), spec)
        most_rows, seconds = max(1, feature.batch_size // spec.channels), feature.batch_seconds / spec.channels
        counted = [round(spec.duration * spec.rate)] * len(lengths) if spec.duration else lengths.tolist()
        parts = list(similar_rows(counted, most_rows, seconds * spec.rate))
        # Each part draws from a generator of its own, so that it does not matter which thread is first.
        seeds = torch.randint(2**62, (len(parts),)).tolist() if self.training else [0] * len(parts)

        @torch.no_grad()
        def compute(part: tuple[list[int], int]) -> Tensor:
            rows, seed = part
            its_lengths = lengths[rows]
            its_waveforms = waveforms[rows, ..., : int(its_lengths.max())]
            augmented = self._augmented(its_waveforms, its_lengths, torch.Generator().manual_seed(seed))
            return _by_channel(feature, *augmented, spec)

        computed = list(thread_map(compute, zip(parts, seeds, strict=True)))
        features = torch.empty(len(waveforms), *computed[0].shape[1:])
        for rows, of_part in zip(parts, computed, strict=True):
            features[rows] = of_part
        return features


def _filled_up(waveforms: Tensor, lengths: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Waveforms of `samples`, with zeros behind each one's length, and the lengths that say that these count."""
    filled = waveforms.new_zeros(*waveforms.shape[:-1], samples)
    filled[..., : waveforms.shape[-1]] = waveforms
    channels = filled.shape[1] if filled.ndim == 3 else 1
    zero_behind(filled.view(-1, samples), lengths.repeat_interleave(channels))
    return filled, torch.full_like(lengths, samples)


def _by_channel(feature: Feature, waveforms: Tensor, lengths: Tensor, spec: InputSpec) -> Tensor:
    """The feature of each channel; those of an item stand one after the other on its first axis."""
    if waveforms.ndim == 2:
        return feature(waveforms, spec.rate, lengths, **spec.params)
    channels = waveforms.shape[1]
    features = feature(waveforms.flatten(0, 1), spec.rate, lengths.repeat_interleave(channels), **spec.params)
    return features.unflatten(0, (-1, channels)).flatten(1, 2)


def shape_of_channels(shape: tuple[int, ...], channels: int, where: str) -> tuple[int, ...]:
    """The shape of an item of features of several channels, from that of one.

    Raises:
        UserError: the feature has no axis for channels; names `where`.
    """
    if channels > 1 and len(shape) != 3:
        what = f"is {channels}, but the front end gives {shape} and has no axis for channels"
        raise UserError(where, what, "set it to 1, or take another front end")
    return (channels * shape[0], *shape[1:]) if channels > 1 else shape
