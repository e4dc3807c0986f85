"""AudioDataset: labelled sounds of any data set that an adapter reads, as waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from data_loader.audio_table import lookup_adapter, read_audio_table
from data_loader.batching import to_rate
from data_loader.excerpt import read_span
from data_loader.fingerprint import split_fingerprints
from data_loader.sound_dataset import SoundDataset
from data_loader.splits import is_test_split
from data_loader.subject import Subject
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)

# Seconds that are read behind a cut: a resampling filter reaches over it.
_MARGIN = 0.1


class AudioDataset(SoundDataset):
    """Sounds with their class, in the order of the table.

    Args:
        data_dir: the data set's folder.
        adapter: see `lookup_adapter`.
        splits: which splits of the table.
        classes: in the order of their indices; None takes the adapter's, or those of the table, sorted.
        duration: seconds to which waveforms are cut, from their start; None keeps them whole.
        rate: samples a second of the waveforms; files of another rate are resampled.
        channels: 1 averages the channels of a file; with more, a file of one channel is repeated.
        test_fold: the items of this fold are the split "test".

    Raises:
        UserError: see `read_audio_table`; there is no item of a split, or a label is none of the classes.
    """

    def __init__(
        self,
        data_dir: str | Path,
        adapter: str | dict[str, Any],
        splits: Sequence[str] = ("train",),
        classes: Sequence[str] | None = None,
        duration: float | None = None,
        rate: int = 44100,
        channels: int = 1,
        test_fold: int | str | None = None,
    ) -> None:
        self.data_dir = Path(data_dir)
        self.duration, self.rate, self.channels = duration, rate, channels
        self.subject = subject_of(adapter)
        self._whole = read_audio_table(self.data_dir, adapter, test_fold)
        self.classes = classes_of(self._whole, adapter, classes)
        present = sorted(self._whole["split"].unique())
        if absent := [split for split in splits if split not in present]:
            hint = f"its splits: {', '.join(present)}"
            raise UserError(self.data_dir, f"has no items of split {absent[0]}", hint)
        self.table = self._whole[self._whole["split"].isin(splits)].reset_index(drop=True)
        self.labels = pd.Index(self.classes).get_indexer(self.table["label"]).astype(np.int64)
        self.groups = self.table[self.subject.group_column].to_numpy()
        self._warn_of_shared_groups()

    @property
    def names(self) -> np.ndarray:
        """``(items,)`` str, unique: the file and where in it the sound begins; one that comes twice is counted."""
        names = self.table["wav_name"] + "_" + self.table["start"].map("{:g}".format)
        count = names.groupby(names).cumcount()
        return names.where(count == 0, names + "_" + count.astype(str)).to_numpy()

    def fingerprint(self) -> dict[str, str]:
        return split_fingerprints(self._whole)

    def _input(self, index: int) -> Tensor:
        path, start, end = (self.table[column].iat[index] for column in ("path", "start", "end"))
        seconds = self.duration + _MARGIN if self.duration else None
        end = None if np.isnan(end) else end
        samples, rate = read_span(self.data_dir / path, start, end, seconds, self.channels)
        return to_rate(samples, rate, self.rate, self.duration)

    def _warn_of_shared_groups(self) -> None:
        """Some published splits have a patient on both sides."""
        column = self.subject.group_column
        tested = self._whole["split"].map(is_test_split).astype(bool)
        shared = set(self._whole[column][tested]) & set(self._whole[column][~tested])
        if shared:
            names = ", ".join(sorted(shared)[:5]) + (", ..." if len(shared) > 5 else "")
            what = f"{self.subject.groups} that are in the test set and in others: {len(shared)} ({names})"
            logger.warning("%s: %s; its scores are a little too good", self.data_dir, what)


def subject_of(adapter: str | dict[str, Any]) -> Subject:
    """What a data set asks to tell apart."""
    found, _ = lookup_adapter(adapter)
    return Subject(found.name, found.scoring, found.groups)


def classes_of(
    table: pd.DataFrame, adapter: str | dict[str, Any], given: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The classes that are given, or else the adapter's, or else those of the table, sorted.

    Raises:
        UserError: there are fewer than two, one is named twice, or a label of the table is none of them.
    """
    labels = sorted(table["label"].unique())
    classes = tuple(given or lookup_adapter(adapter)[0].classes or labels)
    where = "data_loader.args.classes"
    if unknown := [label for label in labels if label not in classes]:
        raise UserError(where, f"lacks the label {unknown[0]!r} of the data", f"its labels: {', '.join(labels)}")
    if not given and len(classes) < 2:
        what = f"holds sounds of one class only: {classes[0]}"
        raise UserError("data_loader.args.data_dir", what, "is it the right folder, and not the one above or below?")
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(where, f"there are the classes {', '.join(classes)}", "at least two, each named once")
    return classes
