"""Scores of parts of a split: by age, sex, site, date and noise, and under other proportions of classes.

A mean over all items hides those that a model serves worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_loader.classes import has_poor_quality
from model.metric import SCORINGS

# A group of fewer patients with normal items, or with adventitious ones, is left out: its score would be chance.
MIN_PATIENTS = 5
# So many times as often comes a class of the adventitious ones in "proportions".
TIMES = 3
_NEEDED = ("age", "gender", "loc", "rec_id", "path", "patient_id")
_YEARS = (3, 6, 9)
_AGES = ("<3", "3-6", "6-9", ">=9")
_SEXES = {0: "male", 1: "female"}


def subgroups(
    table: pd.DataFrame,
    target: NDArray[np.int64],
    prediction: NDArray[np.int64],
    classes: Sequence[str],
    scoring: str,
) -> dict[str, dict[str, dict[str, Any]]] | None:
    """The scores of each subgroup of a split; None for data other than SPRSound.

    - "age" in years, the upper end exclusive; "gender"; "site" of the stethoscope (p1, ...).
    - "date", "noise": quarters q1 to q4 of the recordings, by recording number (as far as it tells the date) and by
      noise level (see `noise_level`), with their `range`.
    - "proportions": the whole split, with each adventitious class in turn 3 times as often. SE and SP do not depend on
      how many items are normal, but SE does on the mixture of the adventitious classes.

    Groups, and classes of "proportions", without 5 patients with normal and 5 with adventitious items (of that class)
    are left out.

    Args:
        table: one item a row, with SPRSound's columns; `noise_db`, dB, where the noise was measured.
        target, prediction: ``(n,)`` class indices.
        scoring: a name in `SCORINGS`.

    Returns:
        By division and group: n, n_patients, and the scores.
    """
    if scoring not in ("task1", "task2") or not set(_NEEDED) <= set(table):
        return None
    patients, n_classes = table["patient_id"].to_numpy(), len(classes)
    first = 2 if has_poor_quality(classes) else 1

    def patients_of(rows: NDArray[np.bool_]) -> int:
        return len(np.unique(patients[rows]))

    def scored(rows: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> dict[str, Any]:
        cells = target[rows] * n_classes + prediction[rows]
        confusion = np.bincount(cells, weights, minlength=n_classes**2).reshape(n_classes, n_classes)
        values = {name: float(value) for name, value in SCORINGS[scoring](confusion).items()}
        return {"n": int(rows.sum()), "n_patients": patients_of(rows), **values}

    found: dict[str, dict[str, dict[str, Any]]] = {}
    for division, name, rows, extra in _groups(table):
        if min(patients_of(rows & (target == 0)), patients_of(rows & (target >= first))) >= MIN_PATIENTS:
            found.setdefault(division, {})[name] = scored(rows) | extra
    everyone = np.ones(len(table), bool)
    enough = [patients_of(target == label) >= MIN_PATIENTS for label in range(n_classes)]
    if enough[0] and len(np.unique(target[target >= first])) > 1:
        for label in range(first, n_classes):
            if enough[label]:
                weights = np.where(target == label, float(TIMES), 1.0)
                found.setdefault("proportions", {})[f"{TIMES}x {classes[label]}"] = scored(everyone, weights)
    return found


def worst_subgroup(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """The subgroup of the lowest score, with its name and its division; None where there is none."""
    groups = [
        {"name": f"{division} {name}", **values} for division, each in found.items() for name, values in each.items()
    ]
    return min(groups, key=lambda group: group["score"], default=None)


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str, NDArray[np.bool_], dict[str, Any]]]:
    """Division, group, its rows, and what else is said of it."""
    ages = np.searchsorted(_YEARS, table["age"].to_numpy(dtype=np.float64), side="right")
    yield from (("age", name, ages == number, {}) for number, name in enumerate(_AGES))
    sites = table["loc"].to_numpy()
    yield from (("site", str(site), sites == site, {}) for site in sorted(set(sites)))
    sexes = table["gender"].to_numpy()
    yield from (("gender", name, sexes == value, {}) for value, name in _SEXES.items())
    for division, column in (("date", "rec_id"), ("noise", "noise_db")):
        if column in table:
            yield from _quarters(division, table[column].to_numpy(dtype=np.float64), ~table["path"].duplicated())


def _quarters(
    division: str, values: NDArray[np.float64], once: NDArray[np.bool_]
) -> Iterator[tuple[str, str, NDArray[np.bool_], dict[str, Any]]]:
    """Quarters of the recordings; `once` are rows that hold each recording once."""
    quarters = np.searchsorted(np.quantile(values[once], (0.25, 0.5, 0.75)), values, side="left")
    for number in range(4):
        rows = quarters == number
        if rows.any():
            inside = values[rows]
            yield division, f"q{number + 1}", rows, {"range": [float(inside.min()), float(inside.max())]}
