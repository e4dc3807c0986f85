"""Splitting a training set into training, validation and, where asked for, a test part, by patient.

Everything here depends on the names of the items, their labels and the seed alone: not on the order of files, the
machine, or the version of a random number generator. Order is drawn by hashing names with the seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)

ValidationSplit = float | int | str | dict[str, int]
# Of the validation_split "64/16/20": numbers of training, validation, test.
_TEST_SIDE = 2
_THREE_SHARES = re.compile(r"\d{1,9}(\.\d{1,9})?(/\d{1,9}(\.\d{1,9})?){2}")
# What test.py calls the third of them: `--split held_out`.
HELD_OUT = "held_out"
# The two parts of the official test set of 2022.
TEST_PARTS = ("inter", "intra")
# The splits of any data set, and what else they are called.
SPLITS = ("train", "valid", "test")
_ALIASES = {"": "train", "training": "train", "validation": "valid", "val": "valid", "dev": "valid", "testing": "test"}


def split_name(written: str) -> str:
    """The name of a split, however a data set spells it: "Training" is "train", and so is what has none.

    A name that is no split's and no test set's stays as it is.

    >>> [split_name(written) for written in ("Val", "TEST", "Test2023", "")]
    ['valid', 'test', 'test2023', 'train']
    """
    name = written.strip().lower()
    name = _ALIASES.get(name, name)
    return name if name in SPLITS or is_test_split(name) else written


def is_test_split(name: str) -> bool:
    """Whether a split of the tables is a test set: "inter", "intra", "test" or "test2023" and the like.

    In letters of either case. A test set is scored; nothing is trained, validated or chosen on it.
    """
    name = name.lower()
    return name in TEST_PARTS or name.startswith("test")


@dataclass(frozen=True)
class Split:
    """Row numbers of the sides, each sorted: int64 arrays. Most splits have no test part."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray = field(default_factory=lambda: np.arange(0))


def has_test_part(validation_split: Any) -> bool:
    """Whether a validation_split ("64/16/20") holds out a part of the training set, to be scored and not chosen on."""
    return isinstance(validation_split, str)


def split_items(
    labels: Sequence[int], groups: Sequence[str], validation_split: ValidationSplit, seed: int = 0
) -> Split:
    """Split items into training, validation and, where asked for, a test part, stratified by label.

    Args:
        labels: class index of each item.
        groups: of each item, the same on every machine; all items of a group come to one side. Patients, unless
            scores that are too good are wanted.
        validation_split: the validation's share of the items (a fraction below 1), how many items (a count), or one
            fold of several, ``{"folds": 5, "fold": 0}``. 0 is no validation. ``"64/16/20"`` are the shares of
            training, validation and a test part. Sizes are as near to these as whole groups and the classes allow: a
            class of enough groups comes to every side, which matters more. A small count or fraction can so become
            several times as many items; a size that is more than a tenth off is logged.
        seed: draws another split of the same kind.

    Raises:
        UserError: the split is impossible (more folds than patients, a count of all items, ...).
    """
    n_items = len(labels)
    if validation_split == 0:
        return Split(np.arange(n_items), np.arange(0))
    groups = [str(group) for group in groups]
    shares, side = _shares(validation_split, n_items, len(set(groups)))
    sides = assign_groups(np.asarray(labels), groups, shares, seed)
    return _by_side(sides, side, shares, validation_split)


def _by_side(sides: np.ndarray, side: int, shares: np.ndarray, validation_split: ValidationSplit) -> Split:
    """Of the side of each item: `side` is the validation. Logs a size far from what the shares ask for."""
    valid = sides == side
    test = (sides == _TEST_SIDE) & has_test_part(validation_split)
    asked = {"validation": (valid, shares[side])}
    if has_test_part(validation_split):
        asked["the test part"] = (test, shares[_TEST_SIDE])
    for name, (rows, share) in asked.items():
        wanted, given = share * len(sides), int(rows.sum())
        if abs(given - wanted) > wanted / 10:
            what = f"{name} has {given:,} items, asked: {wanted:,.0f}"
            logger.info("validation_split is %s: %s (docs/datasets.md#splits says why)", validation_split, what)
    return Split(*(np.flatnonzero(rows) for rows in (~valid & ~test, valid, test)))


def split_in_order(values: Sequence[float], patients: Sequence[str], validation_split: ValidationSplit) -> Split:
    """Split items along an order of their patients, each patient whole on one side.

    No seed: of patients with one value the name decides.

    Args:
        values: of each item what its patient is ordered by; the same for all items of a patient.
        patients: whose item it is.
        validation_split: ``{"folds": 5, "fold": k}`` cuts the order into parts of as nearly the same number of items
            as whole patients allow, and takes the k-th, 0 the smallest values. A fraction or a count takes the end,
            the largest values; ``"64/16/20"`` the middle and the end, the latter as the test part. 0 is no validation.

    Raises:
        UserError: see `split_items`.
    """
    n_items = len(values)
    if validation_split == 0:
        return Split(np.arange(n_items), np.arange(0))
    names, rows, counts = np.unique(np.asarray(patients, dtype=str), return_inverse=True, return_counts=True)
    shares, side = _shares(validation_split, n_items, len(names))
    if not isinstance(validation_split, dict | str):
        shares, side = shares[::-1], 1
    value_of = np.empty(len(names))
    value_of[rows] = values
    order = np.lexsort((np.arange(len(names)), value_of))
    sides = np.empty(len(names), dtype=np.int64)
    sides[order] = _cut(counts[order], shares)
    return _by_side(sides[rows], side, shares, validation_split)


def _cut(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each of a row of groups, cut as near to the shares of items as whole groups allow, none empty.

    Args:
        counts: ``(groups,)`` items of each; at least as many groups as shares.
    """
    after, n_parts = np.cumsum(counts), len(shares)
    parts, start = np.full(len(counts), n_parts - 1), 0
    for part, wanted in enumerate(np.cumsum(shares)[:-1] * after[-1]):
        # Later parts need a group each. Distances are compared rounded: a tie must not hang on the last bit.
        ends = np.arange(start + 1, len(counts) - (n_parts - part) + 2)
        end = int(ends[np.argmin(np.round(np.abs(after[ends - 1] - wanted), 6))])
        parts[start:end] = part
        start = end
    return parts


def _shares(validation_split: Any, n_items: int, n_groups: int) -> tuple[np.ndarray, int]:
    """Target shares of the sides, and which of them is the validation."""
    where = "data_loader.args.validation_split"
    sides = 2
    if isinstance(validation_split, dict):
        if set(validation_split) != {"folds", "fold"}:
            raise UserError(where, f"has the keys {sorted(validation_split)}", 'expected {"folds": 5, "fold": 0}')
        folds, fold = validation_split["folds"], validation_split["fold"]
        if not (isinstance(folds, int) and isinstance(fold, int) and folds >= 2 and 0 <= fold < folds):
            raise UserError(where, f"asks for fold {fold} of {folds}", "folds count from 0, and there are at least 2")
        sides = folds
    if isinstance(validation_split, str):
        sides = 3
        written = validation_split if _THREE_SHARES.fullmatch(validation_split) else "0"
        parts = np.array([float(part) for part in written.split("/")])
        if not parts.all():
            raise UserError(where, f"is {validation_split!r}", 'three shares are written "64/16/20", none of them 0')
    if n_groups < sides:
        what = f"{validation_split!r} needs {sides} groups, there are {n_groups}"
        raise UserError(where, what, "take fewer folds or more patients")
    if isinstance(validation_split, dict):
        return np.full(folds, 1 / folds), fold
    if isinstance(validation_split, str):
        return parts / parts.sum(), 1
    fraction = validation_split / n_items if isinstance(validation_split, int) else validation_split
    if not 0 < fraction < 1:
        raise UserError(where, f"is {validation_split} for {n_items} items", "leave items on both sides")
    return np.array([fraction, 1 - fraction]), 0


def assign_groups(labels: np.ndarray, groups: Sequence[str], shares: np.ndarray, seed: int) -> np.ndarray:
    """Give each group to a side so that every class is shared out as `shares` says, as nearly as groups allow.

    Greedy, the groups with the rarest classes first: each group goes where it brings the classes' shares nearest to
    their targets, in squared error relative to a class's size, so that a rare class weighs as much as a common one.
    A class of at least as many groups as sides is then brought to every side, as far as the other classes of those
    groups allow, and no side is left empty.

    Args:
        labels: ``(items,)`` class indices.
        groups: ``(items,)`` group names.
        shares: ``(sides,)`` target shares, summing to 1.

    Returns:
        ``(items,)`` the side of each item.
    """
    names = sorted(set(groups), key=lambda name: _hash(seed, name))
    row_of = {name: row for row, name in enumerate(names)}
    group_rows = np.array([row_of[name] for name in groups])
    n_classes = int(labels.max()) + 1
    counts = np.zeros((len(names), n_classes))
    np.add.at(counts, (group_rows, labels), 1)
    counts = counts[:, counts.sum(axis=0) > 0]
    # The number of items is one more class, so that the sides get their sizes as well as their mixtures.
    counts = np.column_stack([counts, counts.sum(axis=1)])
    parts = counts / counts.sum(axis=0)

    sides = np.full(len(names), -1)
    filled = np.zeros((len(shares), parts.shape[1]))
    for group in np.argsort(-parts.max(axis=1), kind="stable"):
        missing = shares[:, None] - filled
        # Relative to the side's share, or the small side would get what is left over: the small groups.
        gain = (missing**2 - (missing - parts[group]) ** 2).sum(axis=1) / shares
        # Gains are compared rounded: a tie must not hang on the last bit of a sum.
        sides[group] = int(np.argmax(np.round(gain, 12)))
        filled[sides[group]] += parts[group]
    _bring_rare_classes_everywhere(sides, parts, len(shares))
    _leave_no_side_empty(sides, parts, len(shares))
    return sides[group_rows]


def _bring_rare_classes_everywhere(sides: np.ndarray, parts: np.ndarray, n_sides: int) -> None:
    """Where a side has none of a class that several groups of another side hold, move the smallest such group."""
    for column in range(parts.shape[1] - 1):
        holders = np.flatnonzero(parts[:, column])
        if len(holders) < n_sides:
            continue
        for side in range(n_sides):
            if (sides[holders] == side).any():
                continue
            giver = int(np.bincount(sides[holders], minlength=n_sides).argmax())
            candidates = holders[sides[holders] == giver]
            sides[candidates[np.argmin(parts[candidates, -1])]] = side


def _leave_no_side_empty(sides: np.ndarray, parts: np.ndarray, n_sides: int) -> None:
    """Give a side without any group the smallest one of the side that has most."""
    for side in range(n_sides):
        if not (sides == side).any():
            candidates = np.flatnonzero(sides == np.bincount(sides, minlength=n_sides).argmax())
            sides[candidates[np.argmin(parts[candidates, -1])]] = side


def parted_groups(groups: Sequence[str], split: Split) -> int:
    """How many groups (patients) have items on more than one side."""
    sides = [np.unique(np.asarray(groups, dtype=str)[rows]) for rows in (split.train, split.valid, split.test)]
    return int((np.unique(np.concatenate(sides), return_counts=True)[1] > 1).sum())


def missing_classes(labels: Sequence[int], patients: Sequence[str], split: Split, classes: Sequence[str]) -> list[str]:
    """Sentences about classes that one side of the split has none of, for a warning."""
    labels, patients = np.asarray(labels), np.asarray(patients)
    sides = {"training": split.train, "validation": split.valid, "the test part": split.test}
    sentences = []
    for index, name in enumerate(classes):
        counts = {side: int((labels[rows] == index).sum()) for side, rows in sides.items() if len(rows)}
        with_some = " and ".join(side for side, count in counts.items() if count)
        for without in (side for side, count in counts.items() if not count and with_some):
            items = _counted(sum(counts.values()), "item")
            of_patients = _counted(len(set(patients[labels == index])), "patient")
            sentences.append(f"{without} has no {name}: all of it ({items} of {of_patients}) is in {with_some}")
    return sentences


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number:,} {thing}s"


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
