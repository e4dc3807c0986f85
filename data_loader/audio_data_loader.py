"""AudioDataLoader: labelled sounds of any data set that an adapter reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_loader import data_loaders
from data_loader.audio_dataset import AudioDataset, classes_of, subject_of
from data_loader.audio_table import read_audio_table, rows_of
from data_loader.augment import Augmentation
from data_loader.sound_data_loader import SoundDataLoader
from data_loader.subject import Subject
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)

_WHERE = "data_loader.args.validation_split"


@data_loaders.register()
class AudioDataLoader(SoundDataLoader):
    """Batches of labelled sounds with their classes.

    Args:
        data_dir: the data set's folder.
        adapter: how to read it (`data_loader/adapters/`): a name, or a name with parameters
            (``{"name": "csv", "label": "species"}``).
        batch_size: items a batch.
        shuffle: draw training items in a new order each epoch.
        validation_split: the validation's share, a count, or ``{"folds": 5, "fold": 0}``, by group, or ``"64/16/20"``
            (shares of training, validation and a test part, which is scored and never chosen on); or the data set's
            own: ``{"column": "fold", "value": 1}``, ``{"column": "split", "value": "valid"}``; 0 is none.
        num_workers: worker processes that load.
        frontend: the feature method to compute in the step: a name, or a name with parameters
            (``{"method": "mel", "n_mels": 64}``); null feeds waveforms to the model.
        duration: seconds to cut or pad to; null pads each batch to its longest.
        rate: samples a second of the waveforms; files of another rate are resampled.
        channels: 1 averages the channels of a file. With more, a file of one channel is repeated, and features of
            each channel stand behind each other on their first axis.
        classes: in the order of their indices; null takes the adapter's, or all labels, sorted.
        augment: see `Augmentation`; training only.
        balance: "oversample" repeats items at random up to the number of the largest class, "weights" draws all
            classes equally often, "sqrt_weights" those between (see `RespDataLoader`), "none" takes every item once.
        split_by: "group" keeps all items of a group (a patient, an artist) on one side, "file" those of a file,
            "random" neither.
        split: of the data set: "train" or another, or several joined by "+".
        test_fold: the fold that is the split "test", for a data set with folds and no test set.
        normalize: bring features to mean 0 and deviation 1 over the training items; a number is the deviation.
        seed: of split and order; the config's `seed` unless given.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: see `AudioDataset`, `SoundDataLoader`, `Augmentation.from_config`.
    """

    def __init__(
        self,
        data_dir: str,
        adapter: str | dict[str, Any],
        batch_size: int = 32,
        shuffle: bool = True,
        validation_split: float | str | dict[str, Any] = 0.0,
        num_workers: int = 0,
        frontend: str | dict[str, Any] | None = None,
        duration: float | None = None,
        rate: int = 44100,
        channels: int = 1,
        classes: list[str] | None = None,
        augment: dict[str, Any] | None = None,
        balance: Literal["none", "oversample", "weights", "sqrt_weights"] = "none",
        split_by: Literal["group", "file", "random"] = "group",
        split: str = "train",
        test_fold: int | str | None = None,
        normalize: bool | float = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        augmentation = Augmentation.from_config(augment)
        splits = split.split("+")
        if own := _own_split(validation_split):
            splits.append(own)
        # A random place in a sound can be drawn only where all of it is.
        cut = None if augmentation.place else duration
        super().__init__(
            AudioDataset(data_dir, adapter, splits, classes, cut, rate, channels, test_fold),
            batch_size,
            shuffle,
            validation_split,
            num_workers,
            frontend=frontend,
            duration=duration,
            rate=rate,
            channels=channels,
            augmentation=augmentation,
            normalize=normalize,
            split_by=split_by,
            balance=balance,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    @classmethod
    def subject(cls, args: Mapping[str, Any]) -> Subject:
        return subject_of(args["adapter"])

    @classmethod
    def known_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        return classes_of(_table(args), args["adapter"], args["classes"])

    @classmethod
    def known_splits(cls, args: Mapping[str, Any]) -> set[str]:
        return set(_table(args)["split"])

    @classmethod
    def check_data(cls, args: Mapping[str, Any]) -> None:
        if _is_by_column(args["validation_split"]):
            rows_of(_table(args), **args["validation_split"])

    def split_indices(
        self, dataset: AudioDataset, validation_split: float | int | str | dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        if not _is_by_column(validation_split):
            return super().split_indices(dataset, validation_split)
        valid = rows_of(dataset.table, **validation_split).to_numpy()
        if valid.all():
            raise UserError(_WHERE, f"is {validation_split}, which is all items", "leave items on both sides")
        if shared := set(dataset.groups[valid]) & set(dataset.groups[~valid]):
            what = f"{dataset.subject.groups} that are on both sides: {len(shared)}; validation scores are too good"
            logger.warning("%s %s: %s", validation_split["column"], validation_split["value"], what)
        return np.flatnonzero(~valid), np.flatnonzero(valid)


def _is_by_column(validation_split: Any) -> bool:
    return isinstance(validation_split, dict) and set(validation_split) == {"column", "value"}


def _own_split(validation_split: Any) -> str | None:
    """The data set's split that is to validate, if any."""
    if _is_by_column(validation_split) and validation_split["column"] == "split":
        return str(validation_split["value"])
    return None


def _table(args: Mapping[str, Any]) -> Any:
    return read_audio_table(Path(args["data_dir"]), args["adapter"], args["test_fold"])
