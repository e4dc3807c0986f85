"""What the data sets of labelled sounds share."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
from torch import Tensor
from torch.utils.data import Dataset

from data_loader.batching import Batch
from data_loader.subject import Subject
from utils.errors import UserError


class SoundDataset(Dataset):
    """Labelled sounds in the order of a table.

    Attributes:
        table: one item a row, with the columns `split` and `path`.
        classes: class names in the order of their indices.
        labels: ``(items,)`` int64 class indices.
        groups: ``(items,)`` str, what must not be on both sides of a split.
        names: ``(items,)`` str, unique and the same on every machine.
        recordings: ``(items,)`` str, the file that each item is of, the same on every machine.
        lost: ``(items,)`` bool, items that cannot be read: they come to no side of a split.
        subject: what is classified.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray
    subject: Subject

    @property
    def recordings(self) -> np.ndarray:
        return self.table["wav_name"].to_numpy()

    @property
    def lost(self) -> np.ndarray:
        return np.zeros(len(self), bool)

    @property
    def sizes(self) -> np.ndarray | None:
        """``(items,)``: how much of each item is no padding, where batches should be of similar ones."""
        return None

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def balance_labels(self) -> np.ndarray:
        """``(items,)`` int64: the classes whose numbers decide how often an item is drawn; finer ones if there are."""
        return self.labels

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """One item: its input as in `Batch` without the batch axis, its class index, its number."""
        return self._input(index), int(self.labels[index]), index

    def __getitems__(self, indices: list[int]) -> Batch | list[tuple[Tensor, int, int]] | UserError:
        """The items of a batch. DataLoader calls this where it exists.

        An error is returned, for `BaseDataLoader` to raise: DataLoader would rebuild it from its traceback's text.
        """
        try:
            return [self[index] for index in indices]
        except UserError as error:
            return error

    def fingerprint(self) -> dict[str, str]:
        """A digest of each split of the table, also of those that are not loaded here; see `split_fingerprints`."""
        raise NotImplementedError

    def _input(self, index: int) -> Tensor:
        raise NotImplementedError
