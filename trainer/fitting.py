"""Fitting a model on all training items at once, in place of steps of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from trainer.inference import Predictions, predict

if TYPE_CHECKING:
    # It brings pandas, which a prediction does not need.
    from data_loader.sound_data_loader import SoundDataLoader


class _Inputs(BaseModel):
    """Gives its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def fit_at_once(
    model: BaseModel,
    frontend: nn.Module,
    loader: SoundDataLoader,
    device: torch.device,
    description: str,
    between: Callable[[], None],
) -> Predictions:
    """Fit a model whose `fits_at_once` is true on all items that the loader draws; nothing is augmented.

    Args:
        frontend, device, description, between: see `predict`.

    Returns:
        What the model says of these items then.

    Raises:
        UserError: it cannot be fitted on them.
    """
    inputs, target, index = predict(_Inputs(), frontend, loader, device, description=description, between=between)
    model.fit(inputs, target, loader.dataset.groups[index.numpy()])
    with torch.inference_mode():
        return Predictions(model(inputs).float().cpu(), target, index)
