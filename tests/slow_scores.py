"""The official scores, counted item by item."""

from __future__ import annotations

import math
from collections.abc import Sequence

NUMBERS = ("accuracy", "specificity", "sensitivity", "average_score", "harmonic_score", "score")


def slow_scores(target: Sequence[int], prediction: Sequence[int], poor_quality: bool) -> dict[str, float]:
    """The definitions of DESIGN section 5, item by item."""
    sick = [(t, p) for t, p in zip(target, prediction, strict=True) if t > (1 if poor_quality else 0)]
    normal = [(t, p) for t, p in zip(target, prediction, strict=True) if t == 0]
    sp = sum(t == p for t, p in normal) / len(normal) if normal else math.nan
    se = sum(t == p for t, p in sick) / len(sick) if sick else math.nan
    average = (se + sp) / 2
    harmonic = 2 * se * sp / (se + sp) if se + sp else 0.0
    accuracy = sum(t == p for t, p in zip(target, prediction, strict=True)) / len(target)
    return dict(zip(NUMBERS, [accuracy, sp, se, average, harmonic, (average + harmonic) / 2], strict=True))
