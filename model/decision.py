"""From probabilities to classes: the largest one, or the decision that maximises the official score.

A network gives p(c|x) for the class proportions q that its training effectively had: those of the items, changed by
the way they were drawn and by the weights of the loss. Bayes' rule gives from it the probabilities under any other
proportions pi, p(c|x) pi_c / q_c up to a factor. Nothing here is tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.ensemble import merge
from utils.arguments import matches

RULES = ("argmax", "counted", "score")
# EM stops where no proportion moves by more than this; where one runs towards 0 that may take long.
_TOLERANCE, _MOST_STEPS = 1e-7, 5000


@dataclass(frozen=True)
class Priors:
    """Class proportions, each ``(classes,)`` float64, summing to 1; a class that did not occur has 0.

    Attributes:
        pi: of the training items.
        q: that the probabilities are for: `pi` changed by the drawing of items and by the weights of the loss. What
            `splice` makes of the items is not in it: of SPRSound's recordings, drawn equally often by class, it makes
            16 % Poor Quality and 26 % CAS & DAS of 20 % each.
    """

    pi: NDArray[np.float64]
    q: NDArray[np.float64]

    @staticmethod
    def of(pi: ArrayLike, q: ArrayLike) -> Priors:
        """From numbers in proportion to them.

        Raises:
            ValueError: they are no proportions of the same two or more classes.
        """
        parts = [np.asarray(values, dtype=np.float64) for values in (pi, q)]
        for values in parts:
            if values.ndim != 1 or len(values) < 2 or values.shape != parts[0].shape:
                raise ValueError("pi and q are one number a class")
            with np.errstate(over="ignore"):
                total = values.sum()
            if not np.isfinite(total) or total <= 0 or (values < 0).any():
                raise ValueError("pi and q are finite, not negative and not all 0")
        return Priors(*(values / values.sum() for values in parts))

    def to_dict(self) -> dict[str, list[float]]:
        """What a checkpoint holds as `priors`."""
        return {"pi": self.pi.tolist(), "q": self.q.tolist()}


def read_priors(checkpoint: Mapping[str, Any], key: str, n_classes: int) -> Priors | None:
    """The priors that a checkpoint holds; None where it holds none, as those of earlier versions and other tasks.

    Args:
        key: under which they are.
        n_classes: that they are of.
    """
    found = checkpoint.get(key)
    if not matches(found, dict[str, list[float]]) or found.keys() != {"pi", "q"}:
        return None
    try:
        priors = Priors.of(found["pi"], found["q"])
    except ValueError:
        return None
    return priors if len(priors.pi) == n_classes else None


def decide(
    prob: NDArray,
    rule: str = "argmax",
    priors: Priors | None = None,
    poor_quality: bool = False,
    merged: Sequence[Sequence[int]] | None = None,
) -> NDArray:
    """The class of each item.

    "argmax" takes the most probable class, of equal ones the first. "counted" takes the most probable of those that
    the official score counts: never Poor Quality, which could only cost. "score" maximises the expected average score
    (SE + SP) / 2 on items like those of the training, of proportions pi. A normal item adds to SP, an adventitious one
    found as exactly its class to SE, each the more the rarer its kind is: the decision is the largest of
    p(Normal|x) / pi_Normal and p(c|x) / (sum of pi over the adventitious classes), with p for the proportions pi. Poor
    Quality counts in neither and is never decided. How many items are normal makes no difference to this, how the
    adventitious ones divide into classes does.

    Args:
        prob: ``(items, classes)`` probabilities of a model.
        rule: one of `RULES`.
        priors: of the model; "score" needs them.
        poor_quality: class 1 is Poor Quality (task 2); the classes from then on are adventitious.
        merged: where `prob` and `priors` are of finer classes than are decided: for each, those that it is made of.
            "score" brings their probabilities to the proportions pi before they are put together.

    Returns:
        ``(items,)`` int64.

    Raises:
        ValueError: the rule is unknown, or needs priors.
    """
    if rule == "argmax":
        return merge(prob, merged).argmax(1)
    if rule == "counted":
        prob = merge(prob, merged)
        return np.where([poor_quality and n == 1 for n in range(prob.shape[1])], -1.0, prob).argmax(1)
    if rule != "score" or priors is None:
        raise ValueError(f"rule {rule!r} is unknown, or there are no priors for it")
    first = 2 if poor_quality else 1  # of the adventitious classes
    kinds = merge(priors.pi[None], merged)[0].copy()
    kinds[first:] = kinds[first:].sum()
    # p(c|x) pi_c / q_c, divided by the share of its kind; of what did not occur nothing is decided.
    gain = _ratio(merge(prob * _ratio(priors.pi, priors.q), merged), kinds)
    if poor_quality:
        gain[:, 1] = -1.0
    return gain.argmax(1)


def adapt(prob: NDArray, priors: Priors, proportions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities under other class proportions: p(c|x) proportions_c / q_c, each row summing to 1.

    A row that leaves no class possible stays as it was.
    """
    changed = np.asarray(prob, dtype=np.float64) * _ratio(proportions, priors.q)
    total = changed.sum(1, keepdims=True)
    return np.where(total > 0, _ratio(changed, total), prob)


def estimate_proportions(prob: NDArray, priors: Priors) -> NDArray[np.float64]:
    """The class proportions of unlabelled items, by expectation maximisation.

    Saerens, Latinne and Decaestecker, Neural Computation 14(1), 2002: from the proportions q on, in turn adapt the
    probabilities to the proportions, and take their mean as the next proportions. It is the maximum of the likelihood
    where the probabilities are calibrated and the classes sound as they did in training; only their proportions
    changed. Of a few items it says little.

    Args:
        prob: ``(items, classes)``, at least one item.
        priors: of the model.

    Returns:
        ``(classes,)`` float64, summing to 1.
    """
    prob = np.asarray(prob, dtype=np.float64)
    proportions = priors.q
    for _ in range(_MOST_STEPS):
        then, proportions = proportions, adapt(prob, priors, proportions).mean(0)
        if np.abs(proportions - then).max() < _TOLERANCE:
            break
    return proportions / proportions.sum()


def _ratio(part: NDArray, whole: NDArray) -> NDArray:
    """0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole > 0)
