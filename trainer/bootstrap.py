"""Confidence intervals by bootstrap over patients: of a prediction's scores, and of how two predictions differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.metric import SCORINGS

_CI_LEVELS = (2.5, 97.5)


class Difference(NamedTuple):
    """By how much a number of one prediction is above that of another.

    Attributes:
        value: None where the number is not defined.
        interval: [low, high], 95 %; None where no resample defines it, and for a single patient.
    """

    value: float | None
    interval: list[float] | None


def confidence_intervals(
    target: NDArray[np.int64],
    prediction: NDArray[np.int64],
    patient: NDArray[Any],
    n_classes: int,
    scoring: str,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> dict[str, list[float] | None]:
    """95 % percentile intervals by bootstrap over patients (Efron and Tibshirani 1993, chapter 13).

    Patients are drawn with replacement, each with all its items, since the items of one patient resemble each other.
    Resamples in which a number is undefined are left out of that number's interval.

    Args:
        target, prediction: ``(n,)`` class indices.
        patient: ``(n,)`` who each item is from; other data sets have other groups.
        scoring: a name in `SCORINGS`.

    Returns:
        [low, high] by number; None where no resample defines it, and for a single patient, of whom no resample
        differs: an interval of width 0 would claim certainty.
    """
    confusion = _resampled(_by_patient(target, prediction, patient, n_classes), seed, n_bootstrap)
    return {name: _interval(values) for name, values in SCORINGS[scoring](confusion).items()}


def paired_differences(
    target: NDArray[np.int64],
    prediction: NDArray[np.int64],
    other: NDArray[np.int64],
    patient: NDArray[Any],
    n_classes: int,
    scoring: str,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> dict[str, Difference]:
    """By how much `other` scores above `prediction` on the same items, with 95 % percentile intervals.

    Each resample draws the same patients for both: what makes some of them hard for either is no part of the
    difference. The resamples are those of `confidence_intervals`.

    Args:
        target, prediction, other: ``(n,)`` class indices.
        patient: ``(n,)`` who each item is from; other data sets have other groups.
        scoring: a name in `SCORINGS`.

    Returns:
        the difference by number.
    """
    score = SCORINGS[scoring]
    counts = [_by_patient(target, each, patient, n_classes) for each in (prediction, other)]
    whole, its_whole = (score(own.sum(axis=0)) for own in counts)
    drawn, its_drawn = (score(_resampled(own, seed, n_bootstrap)) for own in counts)
    return {
        name: Difference(_number(its_whole[name] - whole[name]), _interval(its_drawn[name] - drawn[name]))
        for name in whole
    }


def resample_counts(n_patients: int, n_bootstrap: int, seed: int) -> NDArray[np.int64]:
    """How often each patient is drawn in each resample, ``(n_bootstrap, n_patients)``; each row sums to n_patients."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_bootstrap)


def _by_patient(
    target: NDArray[np.int64], prediction: NDArray[np.int64], patient: NDArray[Any], n_classes: int
) -> NDArray[np.int64]:
    """The confusion matrix of each patient, ``(patients, classes, classes)``."""
    who, index = np.unique(patient, return_inverse=True)
    cells = (index * n_classes + target) * n_classes + prediction
    return np.bincount(cells, minlength=len(who) * n_classes**2).reshape(-1, n_classes, n_classes)


def _resampled(by_patient: NDArray[np.int64], seed: int, n_bootstrap: int) -> NDArray[np.int64]:
    """The confusion matrix of each resample, ``(resamples, classes, classes)``; none of a single patient."""
    n_patients, *shape = by_patient.shape
    if n_patients < 2:
        return np.zeros((0, *shape), dtype=np.int64)
    times = resample_counts(n_patients, n_bootstrap, seed)
    # In float64, exact for counts, because NumPy multiplies integer matrices without BLAS.
    return (times.astype(np.float64) @ by_patient.reshape(n_patients, -1)).round().astype(np.int64).reshape(-1, *shape)


def _interval(values: ArrayLike) -> list[float] | None:
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    return [float(v) for v in np.percentile(defined, _CI_LEVELS)] if len(defined) else None


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
