"""From a batch as loaded to what the model sees, on the model's device."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data_loader.augment import Augmentation
from data_loader.features import Feature, methods
from data_loader.store import decode


@dataclass(frozen=True)
class InputSpec:
    """Everything needed to make a model's input of audio again, kept in a checkpoint.

    Attributes:
        method: the feature method; None feeds waveforms to the model.
        params: its parameters.
        input_dir: the feature store's folder; None computes features in the step.
        shape: of one item of model input; the samples of a waveform without fixed duration are -1.
        mean, std: of the training items; the input is normalised by them. 0 and 1 leave it as it is.
        rate: samples a second of the waveforms that the features are computed from; None takes each file's own.
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

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a checkpoint."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        return cls(**values | {"shape": tuple(values["shape"])})


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
            data: ``(batch, ...)`` as in `Batch`: stored features, or waveforms ``(batch, samples)``.
            lengths: ``(batch,)`` for waveforms; None for stored features.

        Returns:
            ``(batch, *spec.shape)`` float32.
        """
        if lengths is None:
            features = decode(data, self._feature.repeats if self._feature else 1)
        else:
            waveforms = self.augmentation.waveform(data, lengths) if self.training else data
            if self._feature is None:
                return waveforms
            with torch.no_grad():
                features = self._feature(waveforms, self.spec.rate, lengths, **self.spec.params)
        if (self.spec.mean, self.spec.std) != (0.0, 1.0):
            features = (features - self.spec.mean) / self.spec.std
        return self.augmentation.spectrogram(features) if self.training else features
