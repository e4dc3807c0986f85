"""Orders of items that depend on the seed and the epoch alone, so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch.utils.data import Sampler

_CHUNK = 8192
# Among so many batches those of similar items are looked for: enough to find them, too few to always meet the same.
_POOL_BATCHES = 16


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
        self._sizes: np.ndarray | None = None
        self._batch = 1

    def batch_similar(self, sizes: np.ndarray, batch: int) -> None:
        """Draw items of similar size one after the other, where items are shuffled.

        Args:
            sizes: ``(items of the data set,)``.
            batch: items that go together, of all processes.
        """
        self._sizes, self._batch = sizes, batch

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

    def order(self) -> np.ndarray:
        """The items of the epoch, of all processes together, from its first on."""
        # Two streams for two numbers: neighbouring seeds must not give the neighbouring epoch's order.
        seed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator().manual_seed(seed)
        items = self.draw(generator)
        if self.shuffle:
            items = items[torch.randperm(len(items), generator=generator).numpy()]
            if self._sizes is not None:
                items = self._similar(items, generator)
            missing = -len(items) % self.world_size
            items = np.concatenate([items, np.resize(items, missing)]) if missing else items
        return items

    def __iter__(self) -> Iterator[int]:
        # Another number of processes may have drawn the first items. Without whole rounds, one of these might have a
        # batch more than the others, and wait for them for ever; a few items come twice in place of that.
        mine = self.order()[self.start - self.start % self.world_size :][self.rank :: self.world_size]
        # Some at a time: a million numbers as Python objects would take 40 MB.
        return chain.from_iterable(mine[start : start + _CHUNK].tolist() for start in range(0, len(mine), _CHUNK))

    def _similar(self, items: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """Shuffled items, sorted by size a pool at a time, and the batches that this makes shuffled again."""
        pool = _POOL_BATCHES * self._batch
        pools = [items[start : start + pool] for start in range(0, len(items), pool)]
        items = np.concatenate([part[self._sizes[part].argsort(kind="stable")] for part in pools])
        n_whole = len(items) // self._batch
        order = torch.randperm(n_whole, generator=generator).numpy()
        whole, rest = items[: n_whole * self._batch], items[n_whole * self._batch :]
        return np.concatenate([whole.reshape(n_whole, self._batch)[order].ravel(), rest])

    def __len__(self) -> int:
        count = self.n_drawn()
        if self.shuffle:
            return -(-count // self.world_size)
        return len(range(self.rank, count, self.world_size))
