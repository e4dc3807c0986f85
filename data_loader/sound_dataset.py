"""What the data sets of labelled sounds share."""

from __future__ import annotations

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
        subject: what is classified.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    names: np.ndarray
    subject: Subject

    def __len__(self) -> int:
        return len(self.table)

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
