"""RespDataset: labelled respiratory sounds, as features of a store or as waveforms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_loader.audio import cut_event, read_audio
from data_loader.classes import resp_classes
from data_loader.store import FeatureStore, preprocess_command
from data_loader.tables import read_table
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)


class Batch(NamedTuple):
    """One batch.

    Attributes:
        data: ``(batch, ...)`` features as stored (uint8 or float16), or waveforms ``(batch, samples)`` float32.
        target: ``(batch,)`` int64 class indices.
        index: ``(batch,)`` int64 item numbers in the data set.
        lengths: ``(batch,)`` int64 samples that count in each waveform; None for features.
    """

    data: Tensor
    target: Tensor
    index: Tensor
    lengths: Tensor | None = None


class RespDataset(Dataset):
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
    ) -> None:
        self.data_dir = Path(data_dir)
        self.task, self.level = task, level
        self.classes = resp_classes(task, level)
        self.duration, self.rate = duration, rate
        table = read_table(self.data_dir, task, filtered)
        present = sorted(set(table["split"]))
        if absent := [split for split in splits if split not in present]:
            has = ", ".join(present) or "none"
            raise UserError(self.data_dir, f"has no items of split {absent[0]} for task {task}", f"its splits: {has}")
        table = table[table["split"].isin(splits)].reset_index(drop=True)
        self.store = FeatureStore(self.data_dir / input_dir) if input_dir is not None else None
        if self.store:
            table, self.places = self._stored(table)
        self.table = table
        self.labels = table[f"label_{task}{level}"].map(self.classes.index).to_numpy(np.int64)
        self.patients = table["patient_id"].to_numpy()
        stems = table["wav_name"].map(lambda name: Path(name).stem)
        self.names = (stems + "_" + table["start_ms"].astype(str) if task == 1 else stems).to_numpy()

    def _stored(self, table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        places = self.store.locate(table, self.task)
        absent = places[:, 0] < 0
        if not absent.any():
            return table, places
        folder, meta = self.store.folder, self.store.meta
        remedy = f"run: {preprocess_command(folder)}"
        if str(self.task) not in meta.items:
            raise UserError(folder, f"holds no features for task {self.task}", f"{remedy} --tasks {self.task}")
        if meta.limit is None or absent.all():
            raise UserError(folder, f"lacks {absent.sum():,} of {len(table):,} items", f"{remedy} --force")
        logger.warning(
            "%s was made with --limit %d: only %d of %d items are used",
            folder,
            meta.limit,
            (~absent).sum(),
            len(table),
        )
        return table[~absent].reset_index(drop=True), places[~absent]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """One item: its input as in `Batch` without the batch axis, its class index, its number."""
        if self.store:
            data = torch.from_numpy(self.store.gather(self.places[[index]]))[0]
        else:
            data = self._waveform(index)
        return data, int(self.labels[index]), index

    def __getitems__(self, indices: list[int]) -> Batch | list[tuple[Tensor, int, int]] | UserError:
        """A whole batch at once: one gather from the store. DataLoader calls this where it exists.

        An error is returned, for `BaseDataLoader` to raise: DataLoader would rebuild it from its traceback's text.
        """
        if not self.store:
            try:
                return [self[index] for index in indices]
            except UserError as error:
                return error
        data = torch.from_numpy(self.store.gather(self.places[indices]))
        return Batch(data, torch.from_numpy(self.labels[indices]), torch.tensor(indices))

    def fingerprint(self) -> str:
        """A digest of the items: names, cuts, labels and patients, and what the store was made from."""
        digest = hashlib.sha256(self.table.drop(columns="path").to_csv(index=False).encode())
        if self.store:
            digest.update(json.dumps(self.store.meta.sources, sort_keys=True).encode())
        return digest.hexdigest()

    def _waveform(self, index: int) -> Tensor:
        row = self.table.iloc[index]
        recording, rate = read_audio(self.data_dir / row["path"])
        start_ms, end_ms = (int(row["start_ms"]), int(row["end_ms"])) if self.task == 1 else (0, -1)
        return to_rate(cut_event(recording, rate, start_ms, end_ms), rate, self.rate, self.duration)


def to_rate(samples: np.ndarray, rate: int, new_rate: int, duration: float | None) -> Tensor:
    """A waveform ``(samples,)`` at another rate, cut to at most `duration` seconds."""
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    if rate != new_rate:
        from torchaudio.functional import resample

        waveform = resample(waveform, rate, new_rate)
    return waveform[: round(duration * new_rate)] if duration else waveform


def collate_resp(
    samples: Batch | list[tuple[Tensor, int, int]] | UserError, samples_at_least: int = 0
) -> Batch | UserError:
    """The collate_fn of RespDataLoader.

    A batch that the store gathered is passed on, as is an error. Waveforms of different lengths are padded with zeros
    to the longest, or to `samples_at_least` samples.
    """
    if isinstance(samples, (Batch, UserError)):
        return samples
    inputs, targets, indices = zip(*samples, strict=True)
    target, index = torch.tensor(targets), torch.tensor(indices)
    if inputs[0].ndim > 1:
        return Batch(torch.stack(inputs), target, index)
    lengths = torch.tensor([len(waveform) for waveform in inputs])
    data = torch.zeros(len(inputs), max(int(lengths.max()), samples_at_least))
    for row, waveform in enumerate(inputs):
        data[row, : len(waveform)] = waveform
    return Batch(data, target, index, lengths)
