"""What the loaders of labelled sounds share: the split, the order of items, and what their input is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from base.base_data_loader import BaseDataLoader, OrderedLoader
from base.sampler import EpochSampler
from data_loader.augment import Augmentation
from data_loader.batching import collate_resp
from data_loader.features import methods
from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.frontend import Frontend, InputSpec, rate_of_features, shape_of_channels
from data_loader.sampling import BALANCE, OversamplingSampler, WeightedSampler
from data_loader.shifts import SHIFTS, shifted_split
from data_loader.sound_dataset import SoundDataset
from data_loader.splits import Split, missing_classes, parted_groups, split_items
from data_loader.store import statistics
from data_loader.subject import Subject
from logger.log import get_logger
from utils.errors import UserError, nearest

logger = get_logger(__name__)

_FRONTEND = "data_loader.args.frontend"

# What a split may go by, and the attribute of a data set that says which items stay together then.
_TOGETHER = {
    "patient": "groups",
    "group": "groups",
    "recording": "recordings",
    "file": "recordings",
    "random": "names",
}


class SoundDataLoader(BaseDataLoader):
    """Batches of labelled sounds.

    A subclass makes the data set. The class methods say what a config asks for before anything is loaded: whoever
    checks a config or scores a checkpoint needs to know no subclass.

    Args:
        dataset: its waveforms have the `rate` and the `channels`.
        batch_size, shuffle, validation_split, num_workers, seed, rank, world_size: see `BaseDataLoader`.
        input_dir: the name of the data set's feature store, if it has one.
        frontend, duration, rate, channels, normalize, split_by, balance: see `RespDataLoader`, `AudioDataLoader`.
        augmentation: training only.

    Raises:
        UserError: an argument is out of range, or see `split_items`.
    """

    def __init__(
        self,
        dataset: SoundDataset,
        batch_size: int,
        shuffle: bool,
        validation_split: float | str | dict[str, Any],
        num_workers: int,
        *,
        input_dir: str | None = None,
        frontend: str | dict[str, Any] | None,
        duration: float | None,
        rate: int,
        channels: int = 1,
        augmentation: Augmentation,
        normalize: bool | float,
        split_by: str,
        balance: str,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.split_by, self.balance, self.augmentation = split_by, balance, augmentation
        # A part of the training set that is scored and never chosen on, where `validation_split` asks for one.
        self.test_indices = np.arange(0)
        at_least = round(duration * rate) if duration else 0
        collate = partial(collate_resp, samples_at_least=at_least, channels=channels)
        super().__init__(dataset, batch_size, shuffle, validation_split, num_workers, collate, seed, rank, world_size)
        if not normalize >= 0:
            raise UserError("data_loader.args.normalize", f"is {normalize}", "expected true, false or a deviation")
        waveforms = {"rate": rate, "duration": duration, "channels": channels}
        spec = self._input_spec(input_dir, frontend, waveforms)
        if normalize and spec.method and len(self.train_indices):
            mean, std = self._statistics(spec)
            spec = replace(spec, mean=mean, std=std / normalize)
        self.input_spec = spec

    # Of an item, where it is no argument of a config.
    channels: int = 1

    @classmethod
    def subject(cls, args: Mapping[str, Any]) -> Subject:
        """What a config with these arguments (defaults filled in) classifies."""
        raise NotImplementedError

    @classmethod
    def known_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        """Its classes.

        Raises:
            UserError: they follow from the data, which cannot be read.
        """
        raise NotImplementedError

    @classmethod
    def known_splits(cls, args: Mapping[str, Any]) -> set[str]:
        """The splits that its table has.

        Raises:
            UserError: the table cannot be read.
        """
        raise NotImplementedError

    @classmethod
    def check_data(cls, args: Mapping[str, Any]) -> None:
        """Check what only this loader knows of its arguments, and that the data is there.

        Raises:
            UserError: names the argument or the file.
        """
        cls.known_splits(args)

    @classmethod
    def metric_problem(cls, args: Mapping[str, Any], metric: str) -> tuple[str, str] | None:
        """Why a metric is none for this data, and what to do; None where it is."""
        return None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return self.dataset.classes

    def class_counts(self) -> np.ndarray:
        """``(classes,)`` int64: training items of each class."""
        return np.bincount(self.dataset.labels[self.train_indices], minlength=len(self.classes))

    @classmethod
    def fine_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        """The classes that a loss with the details "fine" learns."""
        return cls.known_classes(args)

    def fine_counts(self) -> np.ndarray:
        """``(fine classes,)`` int64: training items of each."""
        return self.class_counts()

    def frontend(self) -> Frontend:
        """The module that turns this loader's batches into model input."""
        return Frontend(self.input_spec, self.augmentation)

    def split_indices(
        self, dataset: SoundDataset, validation_split: float | int | str | dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        split = self.split_of(dataset, validation_split)
        lost = dataset.lost
        if lost.any():
            # After the split, so that no other item changes sides.
            split = Split(*(rows[~lost[rows]] for rows in (split.train, split.valid, split.test)))
            if not len(split.train):
                what = "all items to train on or to score are in damaged shards"
                raise UserError("data_loader.args.damaged_shards", what, "make the store anew")
        for sentence in missing_classes(dataset.labels, dataset.groups, split, dataset.classes):
            logger.warning("%s", sentence)
        by_less = self.split_by in ("recording", "file", "random")
        if by_less and (parted := parted_groups(dataset.groups, split)):
            groups = dataset.subject.groups
            what = f"{parted:,} {groups} are on more than one side, and validation scores are too good"
            logger.warning("split_by is %s: %s", self.split_by, what)
        self.test_indices = split.test
        return split.train, split.valid

    def split_of(self, dataset: SoundDataset, validation_split: float | int | str | dict[str, Any]) -> Split:
        """The sides of a data set, before what cannot be used is left out.

        Raises:
            UserError: see `split_items`, `shifted_split`.
        """
        if self.split_by in SHIFTS:
            data_dir = dataset.data_dir
            return shifted_split(dataset.table, dataset.groups, data_dir, validation_split, self.split_by)
        if self.split_by not in _TOGETHER:
            choices = ", ".join([*_TOGETHER, *SHIFTS])
            raise UserError("data_loader.args.split_by", f"is {self.split_by!r}", f"choose from {choices}")
        # Only what is asked for: names take time with a million items.
        groups = getattr(dataset, _TOGETHER[self.split_by])
        return split_items(dataset.labels, groups, validation_split, self.seed)

    def make_sampler(self, dataset: SoundDataset, indices: np.ndarray, shuffle: bool) -> EpochSampler:
        sampler = self._drawn_by_balance(dataset, indices, shuffle)
        if shuffle and (sizes := dataset.sizes) is not None:
            sampler.batch_similar(sizes, self._common["batch_size"] * self.world_size)
        return sampler

    def _drawn_by_balance(self, dataset: SoundDataset, indices: np.ndarray, shuffle: bool) -> EpochSampler:
        common = {"shuffle": shuffle, "seed": self.seed, "rank": self.rank, "world_size": self.world_size}
        if self.balance == "oversample":
            classes, like = self.filled_up(dataset, indices)
            return OversamplingSampler(indices, dataset.labels, classes, like, **common)
        if self.balance == "weights":
            return WeightedSampler(indices, dataset.balance_labels, **common)
        if self.balance == "sqrt_weights":
            return WeightedSampler(indices, dataset.balance_labels, 0.5, **common)
        if self.balance != "none":
            raise UserError("data_loader.args.balance", f"is {self.balance!r}", f"choose from {', '.join(BALANCE)}")
        return EpochSampler(indices, **common)

    def filled_up(self, dataset: SoundDataset, indices: np.ndarray) -> tuple[list[int], int]:
        """Which classes oversampling fills up to the number of items of which: here all to the largest."""
        counts = np.bincount(dataset.labels[indices], minlength=len(dataset.classes))
        return list(range(len(counts))), int(counts.argmax())

    def evaluation(self, part: str) -> DataLoader:
        """A loader of "train" or "valid" items in their order, each once, not augmented."""
        return self.ordered(self.train_indices if part == "train" else self.valid_indices)

    def _input_spec(
        self, input_dir: str | None, frontend: str | dict[str, Any] | None, waveforms: dict[str, Any]
    ) -> InputSpec:
        """What the input is, before normalisation."""
        store = getattr(self.dataset, "store", None)
        if store:
            meta, where = store.meta, f"{store.folder / 'meta.json'}"
            # Here and not after days, when the checkpoint that they go into is read.
            feature = methods.lookup(meta.method, f"{where}: method")
            params, rate = feature.checked(meta.params, f"{where}: params"), rate_of_features(feature, meta.rate)
            return InputSpec(meta.method, params, input_dir, tuple(meta.shape), rate=rate, weights=meta.weights)
        duration, rate, channels = waveforms["duration"], waveforms["rate"], waveforms["channels"]
        if frontend is None:
            samples = round(duration * rate) if duration else -1
            return InputSpec(None, shape=(samples,) if channels == 1 else (channels, samples), **waveforms)
        params = {"method": frontend} if isinstance(frontend, str) else dict(frontend)
        if "method" not in params:
            raise UserError(f"{_FRONTEND}.method", "is missing", nearest("", methods))
        method = params.pop("method")
        feature = methods.lookup(method, _FRONTEND)
        # Settled for the CPU, where the shape and the statistics are computed.
        params = feature.settled(feature.checked(params, _FRONTEND), "cpu")
        try:
            shape = tuple(feature(torch.zeros(rate), rate, **params).shape)
        except UserError as error:
            # A feature knows its parameters, not the config that they come from.
            keys = error.subject.split(", ")
            if not set(keys) <= params.keys():
                raise
            raise UserError(", ".join(f"{_FRONTEND}.{key}" for key in keys), error.what, error.hint) from error
        shape = shape_of_channels(shape, channels, "data_loader.args.channels")
        weights = weights_fingerprint(params["weights"]) if "weights" in params else None
        return InputSpec(method, params, shape=shape, weights=weights, **waveforms)

    def _statistics(self, spec: InputSpec, most: int = 256) -> tuple[float, float]:
        """Mean and deviation of the features of evenly spaced training items."""
        if spec.input_dir is not None:
            return statistics(self.dataset.store, self.dataset.places[self.train_indices])
        chosen = self.train_indices[np.unique(np.linspace(0, len(self.train_indices) - 1, most).astype(int))]
        frontend = Frontend(spec).eval()
        batches = OrderedLoader(
            self.dataset, batch_size=32, sampler=chosen.tolist(), collate_fn=self._common["collate_fn"]
        )
        values = torch.cat([frontend(batch.data, batch.lengths).flatten() for batch in batches])
        return float(values.mean()), max(float(values.std()), 1e-6)
