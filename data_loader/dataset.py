"""RespDataset: labelled respiratory sounds, as features of a store or as waveforms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loader.batching import Batch, to_rate
from data_loader.classes import resp_classes
from data_loader.details import FrameTargets, fine_labels, unknown_outside
from data_loader.excerpt import read_excerpt
from data_loader.features import methods
from data_loader.fingerprint import split_fingerprints
from data_loader.sound_dataset import SoundDataset
from data_loader.store import ABSENT, LOST, FeatureStore, preprocess_command
from data_loader.subject import resp_subject
from data_loader.tables import read_table
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)


class RespDataset(SoundDataset):
    """Events (task 1) or recordings (task 2) with their class, in the order of the table.

    Args:
        data_dir: the data folder, with the tables that preprocessing wrote.
        task, level: which of the four tasks.
        input_dir: the folder of the feature store in `data_dir`; None gives waveforms.
        splits: which splits of the table: ("train",), ("inter", "intra"), ...
        filtered: leave out Poor Quality (task 2).
        duration: seconds to which waveforms are cut (from their start) or padded with zeros; None pads each batch to
            its longest. Only without `input_dir`.
        rate: samples a second of the waveforms; files of another rate are resampled.
        details: what else batches tell of the items, "fine" or "frames", see `details.py`; None: nothing.
        leave_out_damaged: go on without the items of the store's damaged shards, with a warning; see `lost`.

    Raises:
        UserError: a table or the store is missing or damaged, or the store lacks items of the table.
    """

    def __init__(
        self,
        data_dir: str | Path,
        task: int,
        level: int,
        input_dir: str | None,
        splits: Sequence[str] = ("train",),
        filtered: bool = False,
        duration: float | None = None,
        rate: int = 8000,
        leave_out_damaged: bool = False,
        details: str | None = None,
    ) -> None:
        self.data_dir = Path(data_dir)
        self.task, self.level, self.filtered = task, level, filtered
        self.classes, self.subject = resp_classes(task, level), resp_subject(task, level)
        self.duration, self.rate = duration, rate
        table = read_table(self.data_dir, task, filtered)
        present = sorted(table["split"].unique())
        if absent := [split for split in splits if split not in present]:
            has = ", ".join(present) or "none"
            raise UserError(self.data_dir, f"has no items of split {absent[0]} for task {task}", f"its splits: {has}")
        table = table[table["split"].isin(splits)].reset_index(drop=True)
        self.store = FeatureStore(self.data_dir / input_dir) if input_dir is not None else None
        if self.store:
            table, self.places = self._stored(table, leave_out_damaged)
        self.table = table
        self.labels = pd.Index(self.classes).get_indexer(table[f"label_{task}{level}"]).astype(np.int64)
        self.patients = table["patient_id"].to_numpy()
        self.details = details
        self._frames = self._frame_targets() if details == "frames" else None

    @property
    def names(self) -> np.ndarray:
        """``(items,)`` str, unique: the recording without its file's suffix, and of an event its start.

        Of events that begin together, the later ones are counted: the first keeps its name.
        """
        names = self._stems()
        if self.task == 1:
            names = names + "_" + self.table["start_ms"].astype(str)
            if not names.is_unique:
                count = names.groupby(names).cumcount()
                names = names.where(count == 0, names + "_" + count.astype(str))
        return names.to_numpy()

    @property
    def recordings(self) -> np.ndarray:
        """``(items,)`` str, the recording of each item without its file's suffix."""
        return self._stems().to_numpy()

    @property
    def lost(self) -> np.ndarray:
        """``(items,)`` bool: those in damaged shards, where these are left out."""
        return self.places[:, 0] == LOST if self.store else super().lost

    def _stems(self) -> pd.Series:
        of_file = {name: Path(name).stem for name in self.table["wav_name"].unique()}
        return self.table["wav_name"].map(of_file)

    def _stored(self, table: pd.DataFrame, leave_out_damaged: bool) -> tuple[pd.DataFrame, np.ndarray]:
        places = self.store.locate(table, self.task, leave_out_damaged)
        absent = places[:, 0] == ABSENT
        if not absent.any():
            return table, places
        folder, meta = self.store.folder, self.store.meta
        remedy = f"run: {preprocess_command(folder)}"
        if str(self.task) not in meta.items:
            raise UserError(folder, f"holds no features for task {self.task}", f"{remedy} --tasks {self.task}")
        if meta.limit is None or absent.all():
            what = f"lacks {absent.sum():,} of {len(table):,} items"
            if meta.digests:
                what += ": it was made from other recordings or annotations than the tables now tell of"
            raise UserError(folder, what, f"{remedy} --force")
        logger.warning(
            "%s was made with --limit %d: only %d of %d items are used",
            folder,
            meta.limit,
            (~absent).sum(),
            len(table),
        )
        return table[~absent].reset_index(drop=True), places[~absent]

    @property
    def groups(self) -> np.ndarray:
        """``(items,)`` str, the patients."""
        return self.patients

    def __getitems__(self, indices: list[int]) -> Batch | list[tuple[Tensor, int, int]] | UserError:
        """A whole batch at once: one gather from the store."""
        if not self.store:
            return super().__getitems__(indices)
        items = np.array(indices)
        data = self.store.gather(self.places[items])
        details = self._details_of(items, data)
        known = None if details is None else torch.from_numpy(details)
        target, index = torch.from_numpy(self.labels[items]), torch.from_numpy(items)
        return Batch(torch.from_numpy(data), target, index, details=known)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """One item; where there are `details`, they come last."""
        item = super().__getitem__(index)
        if self.details is None:
            return item
        data = self.store.gather(self.places[[index]]) if self.store else None
        return *item, torch.from_numpy(self._details_of(np.array([index]), data))[0]

    @cached_property
    def balance_labels(self) -> np.ndarray:
        return fine_labels(self.table, self.task) if self.details == "fine" else self.labels

    @property
    def sizes(self) -> np.ndarray | None:
        """Of features that mark where a recording ends, the frames before it."""
        if self.task != 2 or not self.store or methods.lookup(self.store.meta.method, "method").span_hop_ms is None:
            return None
        sizes = np.zeros(len(self), np.int64)
        here = ~self.lost
        sizes[here] = (self.store.marks(self.places[here]) > 0).sum(axis=1)
        return sizes

    def _details_of(self, items: np.ndarray, data: np.ndarray | None) -> np.ndarray | None:
        """``(items,)`` int64 or ``(items, frames, k)`` float32; the last channel of `data` tells where items end."""
        if self.details == "fine":
            return self.balance_labels[items]
        return None if self._frames is None else unknown_outside(self._frames[items], data[:, -1, 0] > 0)

    def _frame_targets(self) -> FrameTargets:
        where, hint = "data_loader.args.details", "take input_dir processed_multimel of task 2"
        if self.task != 2 or self.store is None:
            raise UserError(where, "frames are those of the features of recordings", hint)
        meta = self.store.meta
        hop_ms = methods.lookup(meta.method, "method").span_hop_ms
        if hop_ms is None:
            raise UserError(where, f"is frames, and the features {meta.method} have none in time", hint)
        return FrameTargets(self.data_dir, self.table, meta.shape[-1], hop_ms)

    def fingerprint(self) -> dict[str, str]:
        """A digest of each split of the table, also of those that are not loaded here; see `split_fingerprints`."""
        table, origin = read_table(self.data_dir, self.task, self.filtered), ""
        if self.store and (self.store.meta.limit is not None or "digest" not in table):
            # A trial has some of the items, and tables of earlier versions do not tell audio from other audio.
            origin = json.dumps(self.store.meta.sources, sort_keys=True)
        return split_fingerprints(table, origin)

    def _input(self, index: int) -> Tensor:
        if self.store:
            return torch.from_numpy(self.store.gather(self.places[[index]]))[0]
        table, start_ms, end_ms = self.table, 0, -1
        if self.task == 1:
            start_ms, end_ms = int(table["start_ms"].iat[index]), int(table["end_ms"].iat[index])
        samples, rate = read_excerpt(self.data_dir / table["path"].iat[index], start_ms, end_ms)
        return to_rate(samples, rate, self.rate, self.duration)
