"""The base class of all data loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from base.sampler import EpochSampler
from utils.errors import UserError


class OrderedLoader(DataLoader):
    """A DataLoader that raises a `UserError` which its data set gave in place of a batch.

    Raised in a worker process, the error would reach this one as the text of a traceback.
    """

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


class BaseDataLoader(OrderedLoader):
    """A DataLoader over the training side of a data set; `split_validation` gives the other side.

    Args:
        dataset: has a length; items by number.
        batch_size: items a batch.
        shuffle: draw the training items in a new order each epoch.
        validation_split: passed to `split_indices`; 0 keeps all items for training.
        num_workers: worker processes; 0 loads in this process.
        collate_fn: makes a batch of a list of items.
        seed: of the split and the order.
        rank, world_size: this process and how many there are, see `EpochSampler`.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool,
        validation_split: float | int | str | dict[str, int],
        num_workers: int,
        collate_fn: Callable[[Any], Any] = default_collate,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self._common = {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "collate_fn": collate_fn,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": num_workers > 0,
        }
        self.train_indices, self.valid_indices = self.split_indices(dataset, validation_split)
        sampler = self.make_sampler(dataset, self.train_indices, shuffle)
        super().__init__(dataset, sampler=sampler, **self._common)

    def split_indices(
        self, dataset: Dataset, validation_split: float | int | str | dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Item numbers of training and validation: here a random split by fraction or count.

        Raises:
            UserError: it is neither, or leaves no item for training.
        """
        n_items = len(dataset)
        where = "data_loader.args.validation_split"
        if isinstance(validation_split, dict | str):
            raise UserError(where, "folds and shares are not for this data loader", "give a fraction or a count")
        n_valid = validation_split if isinstance(validation_split, int) else int(n_items * validation_split)
        if not 0 <= n_valid < n_items:
            raise UserError(where, f"is {validation_split} for {n_items} items", "leave items on both sides")
        order = np.random.default_rng(self.seed).permutation(n_items)
        return np.sort(order[n_valid:]), np.sort(order[:n_valid])

    def make_sampler(self, dataset: Dataset, indices: np.ndarray, shuffle: bool) -> EpochSampler:
        """The order of the training items; a subclass may balance classes here."""
        return EpochSampler(indices, shuffle, self.seed, self.rank, self.world_size)

    @property
    def n_samples(self) -> int:
        """How many items one epoch draws (in this process)."""
        return len(self.sampler)

    def split_digest(self) -> str:
        """A digest of which items are for training and which for validation."""
        digest = hashlib.sha256(self.train_indices.tobytes())
        digest.update(b"|" + self.valid_indices.tobytes())
        return digest.hexdigest()

    @property
    def items_per_epoch(self) -> int:
        """How many items one epoch draws in all processes together."""
        return self.n_samples * self.world_size

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch whose order the next iteration gives, without its first `start` items.

        Args:
            start: how many items all processes together have drawn of it, as `items_after` counts them.
        """
        self.sampler.set_epoch(epoch, start)

    def drawn_digest(self, items: int) -> str:
        """A digest of which items the epoch has drawn, so many of them, in all processes together."""
        return hashlib.sha256(np.sort(self.sampler.order()[:items]).tobytes()).hexdigest()

    def items_after(self, batches: int, start: int = 0) -> int:
        """How many items of the epoch all processes have drawn, so many batches after `start`."""
        whole_rounds = start - start % self.world_size
        return min(whole_rounds + batches * self.batch_size * self.world_size, self.items_per_epoch)

    def batches_left(self, start: int) -> int:
        """How many batches there are after `start`, in this process."""
        left = self.n_samples - start // self.world_size
        return -(-left // self.batch_size)

    def split_validation(self) -> DataLoader | None:
        """A loader of the validation items in their order, or None where there are none."""
        return self.ordered(self.valid_indices) if len(self.valid_indices) else None

    def ordered(self, indices: np.ndarray) -> DataLoader:
        """A loader of the given items in the given order."""
        sampler = EpochSampler(indices, False, rank=self.rank, world_size=self.world_size)
        return OrderedLoader(self.dataset, sampler=sampler, **self._common)
