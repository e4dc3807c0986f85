"""Metrics of the SPRSound challenge, over a whole split.

Each metric takes ``(output, target)``: `output` logits ``(items, classes)`` or predicted classes ``(items,)``,
`target` ``(items,)`` integers. It returns a float, NaN where it is not defined because no item of that kind occurs;
whoever logs it leaves NaN out. Class 0 is Normal; in task 2, class 1 is Poor Quality; all others are adventitious.

- specificity SP: Normal items predicted Normal, of all Normal items.
- sensitivity SE: adventitious items predicted as exactly their class, of all adventitious items. Poor Quality items
  are in neither; to call a Normal or adventitious item Poor Quality is an error.
- average score AS = (SE + SP) / 2, harmonic score HS = 2 SE SP / (SE + SP), score = (AS + HS) / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from model import metrics


def confusion_matrix(output: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Counts ``(n_classes, n_classes)`` int64 on the CPU, a row for each target, a column for each prediction.

    Args:
        output: logits ``(items, classes)`` or predicted classes ``(items,)``.
        target: ``(items,)`` integers.
        n_classes: classes of the task.

    Raises:
        ValueError: the lengths differ, or a class is not in 0 ... n_classes - 1.
    """
    predicted = _predicted(output).cpu().long()
    target = target.cpu().long()
    if predicted.shape != target.shape or target.ndim != 1:
        raise ValueError(f"{tuple(output.shape)} predictions for {tuple(target.shape)} targets")
    if len(target) and not 0 <= min(predicted.min(), target.min()) <= max(predicted.max(), target.max()) < n_classes:
        raise ValueError(f"predictions or targets are not all in 0 ... {n_classes - 1}")
    return torch.bincount(target * n_classes + predicted, minlength=n_classes**2).view(n_classes, n_classes)


def scores(confusion: ArrayLike, poor_quality: bool) -> dict[str, np.ndarray]:
    """All scores of one or many confusion matrices.

    Args:
        confusion: ``(..., classes, classes)`` counts, (target, prediction); a leading axis may hold resamples.
        poor_quality: class 1 is Poor Quality (task 2).

    Returns:
        accuracy, specificity, sensitivity, average_score, harmonic_score and score, float64 of the shape of the
        leading axes (a scalar for one matrix); NaN where not defined.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    items = counts.sum(-1)
    first = 2 if poor_quality else 1  # of the adventitious classes
    specificity = _ratio(hits[..., 0], items[..., 0])
    sensitivity = _ratio(hits[..., first:].sum(-1), items[..., first:].sum(-1))
    average = (sensitivity + specificity) / 2
    # Both 0 means that nothing was found, not that nothing is defined.
    harmonic = np.where(average == 0, 0.0, _ratio(sensitivity * specificity, average))
    return {
        "accuracy": _ratio(hits.sum(-1), items.sum(-1)),
        "specificity": specificity,
        "sensitivity": sensitivity,
        "average_score": average,
        "harmonic_score": harmonic[()],
        "score": (average + harmonic) / 2,
    }


def icbhi_scores(confusion: ArrayLike) -> dict[str, np.ndarray]:
    """`scores` as ICBHI 2017 defines them: accuracy, specificity, sensitivity, and score = (SE + SP) / 2."""
    values = scores(confusion, poor_quality=False)
    named = {name: values[name] for name in ("accuracy", "specificity", "sensitivity")}
    return named | {"score": values["average_score"]}


def plain_scores(confusion: ArrayLike) -> dict[str, np.ndarray]:
    """Of classes none of which is normal: accuracy alone."""
    return {"accuracy": scores(confusion, poor_quality=False)["accuracy"]}


# How a report scores confusion matrices ``(..., classes, classes)``, by the kind of data.
SCORINGS: dict[str, Callable[[ArrayLike], dict[str, np.ndarray]]] = {
    "task1": partial(scores, poor_quality=False),
    "task2": partial(scores, poor_quality=True),
    "icbhi": icbhi_scores,
    "plain": plain_scores,
}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(part, whole)


def _predicted(output: Tensor) -> Tensor:
    return output.argmax(1) if output.ndim == 2 else output


def _score(name: str, output: Tensor, target: Tensor, poor_quality: bool) -> float:
    if not len(target):
        return float("nan")
    predicted = _predicted(output)
    n_classes = 1 + max(int(predicted.max()), int(target.max()))
    return float(scores(confusion_matrix(predicted, target, n_classes), poor_quality)[name])


@metrics.register()
def accuracy(output: Tensor, target: Tensor) -> float:
    """Items predicted as their class, of all items, Poor Quality among them."""
    return _score("accuracy", output, target, poor_quality=False)


@metrics.register()
def specificity(output: Tensor, target: Tensor) -> float:
    """Normal items predicted Normal, of all Normal items; the same in both tasks."""
    return _score("specificity", output, target, poor_quality=False)


@metrics.register()
def sensitivity_task1(output: Tensor, target: Tensor) -> float:
    """Adventitious events predicted as exactly their class, of all adventitious events."""
    return _score("sensitivity", output, target, poor_quality=False)


@metrics.register()
def sensitivity_task2(output: Tensor, target: Tensor) -> float:
    """Adventitious recordings predicted as exactly their class, of all adventitious recordings."""
    return _score("sensitivity", output, target, poor_quality=True)


@metrics.register()
def average_score_task1(output: Tensor, target: Tensor) -> float:
    """AS of task 1."""
    return _score("average_score", output, target, poor_quality=False)


@metrics.register()
def average_score_task2(output: Tensor, target: Tensor) -> float:
    """AS of task 2."""
    return _score("average_score", output, target, poor_quality=True)


@metrics.register()
def harmonic_score_task1(output: Tensor, target: Tensor) -> float:
    """HS of task 1; 0 where SE and SP both are."""
    return _score("harmonic_score", output, target, poor_quality=False)


@metrics.register()
def harmonic_score_task2(output: Tensor, target: Tensor) -> float:
    """HS of task 2; 0 where SE and SP both are."""
    return _score("harmonic_score", output, target, poor_quality=True)


@metrics.register()
def score_task1(output: Tensor, target: Tensor) -> float:
    """The official Score of task 1, (AS + HS) / 2."""
    return _score("score", output, target, poor_quality=False)


@metrics.register()
def score_task2(output: Tensor, target: Tensor) -> float:
    """The official Score of task 2, (AS + HS) / 2."""
    return _score("score", output, target, poor_quality=True)


@metrics.register()
def icbhi_score(output: Tensor, target: Tensor) -> float:
    """ICBHI 2017's score, (SE + SP) / 2: class 0 is normal, the others have to be predicted exactly."""
    return _score("average_score", output, target, poor_quality=False)
