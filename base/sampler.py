"""Orders of items that depend on the seed and the epoch alone, so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch.utils.data import Sampler

_CHUNK = 8192


class EpochSampler(Sampler[int]):
    """Draws the items of one epoch.

    The order is a function of (seed, epoch): nothing has to be stored to resume, and the number of workers does not
    matter.

    Args:
        indices: ``(items,)`` the items to draw from.
        shuffle: draw them in a new random order each epoch, or in the given one.
        seed: of the orders.
        rank, world_size: with several processes, each draws every `world_size`-th item; the order is filled up from
            its start so that all draw equally many, unless `shuffle` is false.
    """

    def __init__(
        self, indices: np.ndarray, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.shuffle = shuffle
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch whose order the next iteration gives.

        Args:
            start: leave out so many of its first items, counted over all processes.
        """
        self.epoch, self.start = epoch, start

    def draw(self, generator: torch.Generator) -> np.ndarray:
        """The items of one epoch, in any order; a subclass may repeat some or leave some out."""
        return self.indices

    def n_drawn(self) -> int:
        """How many items `draw` gives."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        # Two streams for two numbers: neighbouring seeds must not give the neighbouring epoch's order.
        seed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator().manual_seed(seed)
        items = self.draw(generator)
        if self.shuffle:
            items = items[torch.randperm(len(items), generator=generator).numpy()]
            missing = -len(items) % self.world_size
            items = np.concatenate([items, np.resize(items, missing)]) if missing else items
        mine = items[self.start :][self.rank :: self.world_size]
        # Some at a time: a million numbers as Python objects would take 40 MB.
        return chain.from_iterable(mine[start : start + _CHUNK].tolist() for start in range(0, len(mine), _CHUNK))

    def __len__(self) -> int:
        count = self.n_drawn()
        if self.shuffle:
            return -(-count // self.world_size)
        return len(range(self.rank, count, self.world_size))
