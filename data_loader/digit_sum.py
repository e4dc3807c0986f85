"""A test of memory: sequences of digits, whose class is the sum of the first two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loader import data_loaders
from data_loader.augment import Augmentation
from data_loader.fingerprint import split_fingerprints
from data_loader.sound_data_loader import SoundDataLoader
from data_loader.sound_dataset import SoundDataset
from data_loader.subject import Subject
from utils.errors import UserError

DIGITS = 10
CLASSES = tuple(str(total) for total in range(2 * (DIGITS - 1) + 1))
SUBJECT = Subject("digit-sum", "plain", "pairs")
# Of a sequence, and sequences of a pair in a split: more would not fit into memory.
_MOST_DIGITS, _MOST_VARIANTS = 10_000, 1000
_WHERE = "data_loader.args"


class DigitSumDataset(SoundDataset):
    """Sequences of digits, one-hot; the class is the sum of the first two, which are all 100 pairs equally often.

    No two sequences are the same, of the same or of different splits.

    Args:
        splits: which of "train", "valid" and "test".
        lengths: of a sequence, drawn of these.
        variants: how many sequences begin with each pair, by split.
        seed: of all digits but the first two.
    """

    classes = CLASSES
    subject = SUBJECT
    # Named where another data set names its folder.
    data_dir = f"{_WHERE}.length"

    def __init__(self, splits: Sequence[str], lengths: Sequence[int], variants: Mapping[str, int], seed: int) -> None:
        where = [split for split, number in variants.items() for _ in range(number)]
        rows = [
            (digits, split, sum(pair), f"{pair[0]}+{pair[1]}")
            for pair in product(range(DIGITS), repeat=2)
            for digits, split in zip(islice(_sequences(pair, lengths, seed), len(where)), where, strict=True)
        ]
        self._whole = pd.DataFrame(rows, columns=["wav_name", "split", "label", "group"])
        self.table = self._whole[self._whole["split"].isin(splits)].reset_index(drop=True)
        self.labels = self.table["label"].to_numpy(np.int64)
        self.names, self.groups = (self.table[column].to_numpy() for column in ("wav_name", "group"))

    def fingerprint(self) -> dict[str, str]:
        return split_fingerprints(self._whole)

    def _input(self, index: int) -> Tensor:
        """``(10, length)`` float32."""
        digits = torch.tensor([int(digit) for digit in self.names[index]])
        return torch.nn.functional.one_hot(digits, DIGITS).T.float()


def _lengths(length: int | list[int]) -> list[int]:
    return [length] if isinstance(length, int) else length


def _sequences(pair: tuple[int, int], lengths: Sequence[int], seed: int) -> Iterator[str]:
    """Different sequences that begin with a pair, without end; the first ones are the same however many are taken."""
    generator = np.random.default_rng([seed, *pair])
    seen = set()
    while True:
        rest = generator.integers(DIGITS, size=generator.choice(lengths) - len(pair))
        digits = "".join(map(str, [*pair, *rest.tolist()]))
        if digits not in seen:
            seen.add(digits)
            yield digits


@data_loaders.register()
class DigitSumDataLoader(SoundDataLoader):
    """Batches of sequences of digits ``(batch, 10, steps)``, one-hot, with the sum of their first two digits.

    Args:
        batch_size, shuffle, num_workers: see `BaseDataLoader`.
        length: digits of each sequence; of a list of lengths, each sequence draws one.
        train_variants: training sequences of each of the 100 pairs of first digits.
        validation_split: validation sequences of each pair; 0 is none. The test set has one of each.
        split: "train" or "test".
        seed: of the sequences and their order; the config's `seed` unless given.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: there are not so many different sequences, or an argument is out of range.
    """

    channels = DIGITS

    def __init__(
        self,
        batch_size: int = 32,
        shuffle: bool = True,
        num_workers: int = 0,
        length: int | list[int] = 5,
        train_variants: int = 3,
        validation_split: int = 1,
        split: str = "train",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        given = {"length": length, "train_variants": train_variants, "validation_split": validation_split}
        self.check_data(given | {"split": split})
        # The validation last: a test without it finds the other sequences as they were.
        variants = {"test": 1, "train": train_variants, "valid": validation_split}
        splits = [split, "valid"] if split == "train" else [split]
        super().__init__(
            DigitSumDataset(splits, _lengths(length), variants, seed),
            batch_size,
            shuffle,
            validation_split,
            num_workers,
            frontend=None,
            duration=None,
            rate=1,
            channels=DIGITS,
            augmentation=Augmentation(),
            normalize=False,
            split_by="group",
            balance="none",
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    @classmethod
    def subject(cls, args: Mapping[str, Any]) -> Subject:
        return SUBJECT

    @classmethod
    def known_classes(cls, args: Mapping[str, Any]) -> tuple[str, ...]:
        return CLASSES

    @classmethod
    def known_splits(cls, args: Mapping[str, Any]) -> set[str]:
        return {"train", "test"}

    @classmethod
    def check_data(cls, args: Mapping[str, Any]) -> None:
        if args["split"] not in cls.known_splits(args):
            raise UserError(f"{_WHERE}.split", f"is {args['split']!r}", "expected train or test")
        for name, least in (("train_variants", 1), ("validation_split", 0)):
            if not least <= args[name] <= _MOST_VARIANTS:
                raise UserError(f"{_WHERE}.{name}", f"is {args[name]}", f"expected {least} to {_MOST_VARIANTS}")
        lengths, where = _lengths(args["length"]), f"{_WHERE}.length"
        if not lengths or not 2 <= min(lengths) <= max(lengths) <= _MOST_DIGITS:
            raise UserError(
                where, f"is {args['length']}", f"expected 2 to {_MOST_DIGITS} digits, or a list of lengths"
            )
        needed = args["train_variants"] + args["validation_split"] + 1
        if sum(DIGITS ** (length - 2) for length in set(lengths)) < needed:
            what = f"is {args['length']}: there are no {needed} different sequences of each pair"
            raise UserError(where, what, "take longer ones")

    def split_indices(self, dataset: DigitSumDataset, validation_split: Any) -> tuple[np.ndarray, np.ndarray]:
        valid = (dataset.table["split"] == "valid").to_numpy()
        return np.flatnonzero(~valid), np.flatnonzero(valid)
