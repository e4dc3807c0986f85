"""Balancing classes by the way items are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from base.sampler import EpochSampler

BALANCE = ("none", "oversample", "weights", "sqrt_weights")


class OversamplingSampler(EpochSampler):
    """All items, and each of some classes filled up to the number of another one by random repetition.

    Args:
        indices, shuffle, seed, rank, world_size: see `EpochSampler`.
        labels: ``(items of the data set,)`` class indices.
        classes: the class indices to fill up.
        like: the class up to whose number of items; 0, normal, by default.
    """

    def __init__(
        self, indices: np.ndarray, labels: np.ndarray, classes: list[int], like: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(indices, **kwargs)
        its_labels = labels[self.indices]
        most = int((its_labels == like).sum())
        by_class = [self.indices[its_labels == label] for label in classes]
        self._fill = [(items, most - len(items)) for items in by_class if 0 < len(items) < most]

    def draw(self, generator: torch.Generator) -> np.ndarray:
        parts = [self.indices]
        for items, missing in self._fill:
            parts.append(items[torch.randint(len(items), (missing,), generator=generator).numpy()])
        return np.concatenate(parts)

    def n_drawn(self) -> int:
        return len(self.indices) + sum(missing for _, missing in self._fill)


class WeightedSampler(EpochSampler):
    """As many draws as items, with replacement, more often of the smaller classes.

    Args:
        indices, shuffle, seed, rank, world_size: see `EpochSampler`.
        labels: ``(items of the data set,)`` class indices.
        power: an item is drawn with a probability that goes as the number of its class to the power -`power`: with 1,
            every class has the same.
    """

    def __init__(self, indices: np.ndarray, labels: np.ndarray, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(indices, **kwargs)
        its_labels = labels[self.indices]
        self._weights = torch.from_numpy(1.0 / np.bincount(its_labels)[its_labels] ** power)

    def draw(self, generator: torch.Generator) -> np.ndarray:
        drawn = torch.multinomial(self._weights, len(self.indices), replacement=True, generator=generator)
        return self.indices[drawn.numpy()]
