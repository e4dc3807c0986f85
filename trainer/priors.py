"""The class proportions that a model was trained for, as its checkpoint keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from base.base_data_loader import BaseDataLoader
from base.base_model import BaseModel
from model.decision import Priors

if TYPE_CHECKING:
    # It brings pandas, which a prediction does not need.
    from data_loader.sound_data_loader import SoundDataLoader

# The kinds of data whose score the decision rule knows.
_SCORINGS = ("task1", "task2")
# The sampler draws an item with a probability that goes as the number of its class to the power of minus this.
_POWERS = {"weights": 1.0, "sqrt_weights": 0.5}


def training_priors(
    loader: SoundDataLoader | BaseDataLoader, criterion: nn.Module, model: BaseModel
) -> dict[str, list[float]] | None:
    """What `decide` needs of a training, see `Priors`: for SPRSound's tasks, and None for others.

    A model that is fitted at once has its own ways of weighing classes, and its numbers may be no probabilities: None.

    Args:
        criterion: the loss; its class weights, if any, are its `weight`.
    """
    subject = getattr(loader.dataset, "subject", None)
    if subject is None or subject.scoring not in _SCORINGS:
        return None
    if model.fits_at_once or not len(loader.train_indices):
        return None
    dataset, items = loader.dataset, loader.train_indices
    weights = draws_of_items(loader)
    if getattr(criterion, "weight", None) is not None:
        # A loss of finer classes has a weight for each of these.
        fine = getattr(criterion, "details", None) == "fine"
        labels = (dataset.balance_labels if fine else dataset.labels)[items]
        weights = weights * criterion.weight.double().cpu().numpy()[labels]
    if not weights.sum() > 0:
        return None
    effective = np.bincount(dataset.labels[items], weights, minlength=len(loader.classes))
    return Priors.of(loader.class_counts(), effective).to_dict()


def draws_of_items(loader: SoundDataLoader) -> np.ndarray:
    """How often an epoch draws each training item, expected: ``(training items,)`` float64, in any unit."""
    dataset, items = loader.dataset, loader.train_indices
    if loader.balance == "oversample":
        labels = dataset.labels[items]
        counts = np.bincount(labels, minlength=len(loader.classes)).astype(np.float64)
        classes, like = loader.filled_up(dataset, items)
        draws = np.ones(len(counts))
        draws[classes] = np.maximum(counts[like] / np.maximum(counts[classes], 1.0), 1.0)
        return draws[labels]
    labels = dataset.balance_labels[items]
    return np.bincount(labels)[labels] ** -_POWERS.get(loader.balance, 0.0)
