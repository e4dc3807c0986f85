"""RespDataLoader: what a config's `data_loader` names."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from base.base_data_loader import BaseDataLoader, OrderedLoader
from base.sampler import EpochSampler
from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.batching import collate_resp
from data_loader.classes import NORMAL, POOR_QUALITY
from data_loader.dataset import RespDataset
from data_loader.features import methods
from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.frontend import Frontend, InputSpec
from data_loader.sampling import BALANCE, OversamplingSampler, WeightedSampler
from data_loader.splits import missing_classes, split_items
from data_loader.store import statistics
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)


@data_loaders.register()
class RespDataLoader(BaseDataLoader):
    """Batches of respiratory sounds with their classes.

    Args:
        data_dir: the data folder.
        batch_size: items a batch.
        shuffle: draw training items in a new order each epoch.
        validation_split: the validation's share, a count, or ``{"folds": 5, "fold": 0}``; 0 is none.
        num_workers: worker processes that load.
        task, level: 1-1, 1-2 (events), 2-1 or 2-2 (recordings).
        input_dir: the feature store's folder in `data_dir`; null gives waveforms.
        split_by: "patient" keeps all items of a patient on one side. "random" does not: its scores are too good.
        balance: "oversample" repeats adventitious items at random up to the number of normal ones, "weights" draws all
            classes equally often, "none" takes every item once.
        filtered: leave out Poor Quality (task 2); the classes and their indices stay.
        augment: see `Augmentation`; training only.
        frontend: with `input_dir` null, the feature method to compute in the step: a name, or a name with parameters
            (``{"method": "mel", "n_mels": 64}``); null feeds waveforms to the model.
        duration: with `input_dir` null, seconds to cut or pad to; null pads each batch to its longest.
        rate: with `input_dir` null, samples a second of the waveforms.
        split: of the table: "train" or another, or several joined by "+" ("inter+intra").
        normalize: bring features to mean 0 and deviation 1 over the training items; a number is the deviation to
            bring them to (AudioSet weights of the AST were trained on 0.5).
        seed: of split and order; the config's `seed` unless given.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: see `RespDataset`, `split_items`, `Augmentation.from_config`.
    """

    def __init__(
        self,
        data_dir: str = "data/SPRSound/",
        batch_size: int = 32,
        shuffle: bool = True,
        validation_split: float | dict[str, int] = 0.0,
        num_workers: int = 0,
        task: Literal[1, 2] = 1,
        level: Literal[1, 2] = 1,
        input_dir: str | None = None,
        split_by: Literal["patient", "random"] = "patient",
        balance: Literal["none", "oversample", "weights"] = "none",
        filtered: bool = False,
        augment: dict[str, Any] | None = None,
        frontend: str | dict[str, Any] | None = None,
        duration: float | None = None,
        rate: int = 8000,
        split: str = "train",
        normalize: bool | float = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split_by, self.balance = split_by, balance
        self.augmentation = Augmentation.from_config(augment)
        dataset = RespDataset(data_dir, task, level, input_dir, tuple(split.split("+")), filtered, duration, rate)
        at_least = round(duration * rate) if duration else 0
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            validation_split,
            num_workers,
            partial(collate_resp, samples_at_least=at_least),
            seed,
            rank,
            world_size,
        )
        if not normalize >= 0:
            raise UserError("data_loader.args.normalize", f"is {normalize}", "expected true, false or a deviation")
        spec = self._input_spec(input_dir, frontend)
        if normalize and spec.method and len(self.train_indices):
            mean, std = self._statistics(spec)
            spec = replace(spec, mean=mean, std=std / normalize)
        self.input_spec = spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return self.dataset.classes

    def class_counts(self) -> np.ndarray:
        """``(classes,)`` int64: training items of each class."""
        return np.bincount(self.dataset.labels[self.train_indices], minlength=len(self.classes))

    def frontend(self) -> Frontend:
        """The module that turns this loader's batches into model input."""
        return Frontend(self.input_spec, self.augmentation)

    def split_indices(
        self, dataset: RespDataset, validation_split: float | int | dict[str, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        # Names take time with a million items, and a split by patient does not look at them.
        names = dataset.names if self.split_by == "random" else ()
        split = split_items(dataset.labels, dataset.patients, names, validation_split, self.split_by, self.seed)
        for sentence in missing_classes(dataset.labels, dataset.patients, split, dataset.classes):
            logger.warning("%s", sentence)
        if self.split_by == "random" and len(split.valid):
            logger.warning("split_by is random: patients are on both sides, and validation scores are too good")
        return split.train, split.valid

    def make_sampler(self, dataset: RespDataset, indices: np.ndarray, shuffle: bool) -> EpochSampler:
        common = {"shuffle": shuffle, "seed": self.seed, "rank": self.rank, "world_size": self.world_size}
        if self.balance == "oversample":
            adventitious = [i for i, name in enumerate(dataset.classes) if name not in (NORMAL, POOR_QUALITY)]
            return OversamplingSampler(indices, dataset.labels, adventitious, **common)
        if self.balance == "weights":
            return WeightedSampler(indices, dataset.labels, **common)
        if self.balance != "none":
            raise UserError("data_loader.args.balance", f"is {self.balance!r}", f"choose from {', '.join(BALANCE)}")
        return EpochSampler(indices, **common)

    def evaluation(self, part: str) -> DataLoader:
        """A loader of "train" or "valid" items in their order, each once, not augmented."""
        return self.ordered(self.train_indices if part == "train" else self.valid_indices)

    def _input_spec(self, input_dir: str | None, frontend: str | dict[str, Any] | None) -> InputSpec:
        """What the input is, before normalisation."""
        dataset: RespDataset = self.dataset
        if dataset.store:
            meta = dataset.store.meta
            return InputSpec(meta.method, meta.params, input_dir, tuple(meta.shape), weights=meta.weights)
        samples = round(dataset.duration * dataset.rate) if dataset.duration else -1
        common = {"rate": dataset.rate, "duration": dataset.duration}
        if frontend is None:
            return InputSpec(None, shape=(samples,), **common)
        params = {"method": frontend} if isinstance(frontend, str) else dict(frontend)
        method = params.pop("method", "")
        feature = methods.lookup(method, "data_loader.args.frontend")
        # Settled for the CPU, where the shape and the statistics are computed.
        params = feature.settled(feature.checked(params, "data_loader.args.frontend"), "cpu")
        shape = tuple(feature(torch.zeros(dataset.rate), dataset.rate, **params).shape)
        weights = weights_fingerprint(params["weights"]) if "weights" in params else None
        return InputSpec(method, params, shape=shape, weights=weights, **common)

    def _statistics(self, spec: InputSpec, most: int = 256) -> tuple[float, float]:
        """Mean and deviation of the features of evenly spaced training items."""
        if self.dataset.store:
            return statistics(self.dataset.store, self.dataset.places[self.train_indices])
        chosen = self.train_indices[np.unique(np.linspace(0, len(self.train_indices) - 1, most).astype(int))]
        frontend = Frontend(spec).eval()
        batches = OrderedLoader(
            self.dataset, batch_size=32, sampler=chosen.tolist(), collate_fn=self._common["collate_fn"]
        )
        values = torch.cat([frontend(batch.data, batch.lengths).flatten() for batch in batches])
        return float(values.mean()), max(float(values.std()), 1e-6)


def data_folder(args: dict[str, Any]) -> Path:
    """The data folder that a config's data loader arguments name."""
    return Path(args.get("data_dir", "data/SPRSound/"))
