"""RespDataLoader: what a config's `data_loader` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.classes import NORMAL, POOR_QUALITY, resp_classes
from data_loader.dataset import RespDataset
from data_loader.features import methods
from data_loader.sound_data_loader import SoundDataLoader
from data_loader.splits import Split
from data_loader.subject import Subject, resp_subject
from data_loader.tables import read_table
from utils.errors import UserError


@data_loaders.register()
class RespDataLoader(SoundDataLoader):
    """Batches of respiratory sounds with their classes.

    Args:
        data_dir: the data folder.
        batch_size: items a batch.
        shuffle: draw training items in a new order each epoch.
        validation_split: the validation's share, a count, or ``{"folds": 5, "fold": 0}``; 0 is none. ``"64/16/20"``
            are shares of training, validation and a test part, which is scored and never chosen on.
        num_workers: worker processes that load.
        task, level: 1-1, 1-2 (events), 2-1 or 2-2 (recordings).
        input_dir: the feature store's folder in `data_dir`; null gives waveforms.
        split_by: "patient" keeps all items of a patient on one side, "recording" those of a recording, "random"
            neither. Where patients are on several sides, scores are too good.
            "date", "age" and "noise" keep patients whole too, and cut them in the order of their recording numbers,
            ages in years or noise levels: fold 4 of 5 validates on the newest, oldest or noisiest fifth.
        split_as: draw the sides as this task does, "2-2" say, whose classes are spread over folds otherwise: what is
            trained on fold 0 of one task then knows no patient of fold 0 of the other. null: as the own task.
        balance: "oversample" repeats adventitious items at random up to the number of normal ones, "weights" draws all
            classes equally often, "sqrt_weights" is between (an item of a class of n with a probability that goes as n
            to the power -0.5), "none" takes every item once.
        details: what a model learns beside the class: "fine", the class at level 2; "frames", what is heard in each
            frame (task 2); null, nothing.
        filtered: leave out Poor Quality (task 2); the classes and their indices stay.
        augment: see `Augmentation`; training only.
        frontend: with `input_dir` null, the feature method to compute in the step: a name, or a name with parameters
            (``{"method": "mel", "n_mels": 64}``); null feeds waveforms to the model.
        duration: with `input_dir` null, seconds to cut or pad to; null pads each batch to its longest.
        rate: with `input_dir` null, samples a second of the waveforms.
        split: of the table: "train" or another, or several joined by "+" ("inter+intra").
        normalize: bring features to mean 0 and deviation 1 over the training items; a number is the deviation to
            bring them to (AudioSet weights of the AST were trained on 0.5).
        damaged_shards: what to do about damaged files of the store: "refuse", or "leave_out" their items, with a
            warning. The split is made before, so that no item changes sides.
        seed: of split and order; the config's `seed` unless given.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: see `RespDataset`, `SoundDataLoader`, `Augmentation.from_config`.
    """

    def __init__(
        self,
        data_dir: str = "data/SPRSound/",
        batch_size: int = 32,
        shuffle: bool = True,
        validation_split: float | str | dict[str, int] = 0.0,
        num_workers: int = 0,
        task: Literal[1, 2] = 1,
        level: Literal[1, 2] = 1,
        input_dir: str | None = None,
        split_by: Literal["patient", "recording", "random", "date", "age", "noise"] = "patient",
        split_as: Literal["1-1", "1-2", "2-1", "2-2"] | None = None,
        balance: Literal["none", "oversample", "weights", "sqrt_weights"] = "none",
        details: Literal["fine", "frames"] | None = None,
        filtered: bool = False,
        augment: dict[str, Any] | None = None,
        frontend: str | dict[str, Any] | None = None,
        duration: float | None = None,
        rate: int = 8000,
        split: str = "train",
        normalize: bool | float = True,
        damaged_shards: Literal["refuse", "leave_out"] = "refuse",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split_as = split_as
        augmentation = Augmentation.from_config(augment)
        # A random place in a sound can be drawn only where all of it is.
        cut = None if augmentation.place else duration
        also = {"details": details, "leave_out_damaged": damaged_shards == "leave_out"}
        super().__init__(
            RespDataset(data_dir, task, level, input_dir, tuple(split.split("+")), filtered, cut, rate, **also),
            batch_size,
            shuffle,
            validation_split,
            num_workers,
            input_dir=input_dir,
            frontend=frontend,
            duration=duration,
            rate=rate,
            augmentation=augmentation,
            normalize=normalize,
            split_by=split_by,
            balance=balance,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    def split_of(self, dataset: RespDataset, validation_split: float | int | str | dict[str, Any]) -> Split:
        if self.split_as is None or validation_split == 0:
            return super().split_of(dataset, validation_split)
        if self.split_by in ("recording", "random"):
            what = f"is {self.split_as}, but split_by {self.split_by} tells the sides of items, not of patients"
            raise UserError("data_loader.args.split_as", what, "leave one of the two out")
        task, level = map(int, self.split_as.split("-"))
        other = RespDataset(dataset.data_dir, task, level, None, tuple(dataset.table["split"].unique()))
        its = super().split_of(other, validation_split)
        valid, test = (np.isin(dataset.groups, other.groups[rows]) for rows in (its.valid, its.test))
        return Split(*map(np.flatnonzero, (~valid & ~test, valid, test)))

    @classmethod
    def subject(cls, args: Mapping[str, Any]) -> Subject:
        return resp_subject(args["task"], args["level"])

    @classmethod
    def known_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        return resp_classes(args["task"], args["level"])

    @classmethod
    def fine_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        return resp_classes(args["task"], 2)

    def fine_counts(self) -> np.ndarray:
        n_classes = len(resp_classes(self.dataset.task, 2))
        return np.bincount(self.dataset.balance_labels[self.train_indices], minlength=n_classes)

    @classmethod
    def known_splits(cls, args: Mapping[str, Any]) -> set[str]:
        return set(read_table(data_folder(args), args["task"], args["filtered"])["split"])

    @classmethod
    def check_data(cls, args: Mapping[str, Any]) -> None:
        if args["filtered"] and args["task"] == 1:
            what = "goes with task 2 only: events have no Poor Quality"
            raise UserError("data_loader.args.filtered", what, "remove it")
        frontend = args["frontend"]
        name = frontend.get("method") if isinstance(frontend, dict) else frontend
        if args["task"] == 1 and isinstance(name, str) and name in methods and methods[name].in_context:
            what = f"is {name}, which hears what lies around an event; a waveform is the event alone"
            raise UserError("data_loader.args.frontend", what, f"preprocess it, and set input_dir to processed_{name}")
        super().check_data(args)

    @classmethod
    def metric_problem(cls, args: Mapping[str, Any], metric: str) -> tuple[str, str] | None:
        task = args["task"]
        other = f"_task{3 - task}"
        if metric.endswith(other):
            return f"the data is of task {task}", f"take {metric.replace(other, f'_task{task}')}"
        return None

    def filled_up(self, dataset: RespDataset, indices: np.ndarray) -> tuple[list[int], int]:
        """Adventitious classes to the number of normal items."""
        return [i for i, name in enumerate(dataset.classes) if name not in (NORMAL, POOR_QUALITY)], 0


def data_folder(args: Mapping[str, Any]) -> Path:
    """The data folder that a config's data loader arguments name."""
    return Path(args.get("data_dir", "data/SPRSound/"))
