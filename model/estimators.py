"""The classical estimators by name: a scikit-learn pipeline of selection, scaling and a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from utils.errors import nearest

Kind = Literal["naive_bayes", "logistic_regression", "knn", "svm", "random_forest", "gradient_boosting"]
# A probability of 0 has no logarithm.
_LEAST = 1e-12
# k-NN by comparing all: a tree of neighbours would be one more kind of object to trust in a checkpoint. No early
# stopping of the boosting: the items that it holds back for it are of patients that it trains on.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"max_iter": 1000},
    "knn": {"n_neighbors": 15, "algorithm": "brute"},
    "random_forest": {"n_estimators": 300},
    "gradient_boosting": {"early_stopping": False},
}


def estimator_class(kind: str) -> type:
    """The class of scikit-learn that a kind stands for."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    return {
        "naive_bayes": GaussianNB,
        "logistic_regression": LogisticRegression,
        "knn": KNeighborsClassifier,
        "svm": SVC,
        "random_forest": RandomForestClassifier,
        "gradient_boosting": HistGradientBoostingClassifier,
    }[kind]


def make_pipeline(
    kind: str,
    params: Mapping[str, Any],
    scale: bool = True,
    select: int | None = None,
    class_weight: str | None = None,
    seed: int = 0,
) -> Any:
    """A pipeline that is not fitted: constant features out, scaling, the best features, the classifier.

    All of it is fitted on what `fit` is given, and so within each fold of a cross-validation.

    Args:
        params: of the classifier, over the defaults here and in scikit-learn.
        scale: bring each feature to mean 0 and deviation 1.
        select: keep this many features, those with the largest F of an analysis of variance; None keeps all.
        class_weight: "balanced", for an estimator that has this parameter.

    Raises:
        ValueError: a parameter is unknown or of a wrong value; the message is a clause.
    """
    from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = estimator_class(kind)()
    known = classifier.get_params()
    if unknown := sorted(params.keys() - known):
        raise ValueError(f"{kind} has no parameter {unknown[0]} ({nearest(unknown[0], known)})")
    own = {"random_state": seed, "class_weight": class_weight}
    own = {name: value for name, value in own.items() if name in known}
    classifier.set_params(**own | _DEFAULTS.get(kind, {}) | dict(params))
    steps = [
        ("variance", VarianceThreshold()),
        ("scale", StandardScaler() if scale else "passthrough"),
        ("select", SelectKBest(f_classif, k="all" if select is None else select)),
        ("classifier", classifier),
    ]
    for _, step in steps:
        if not isinstance(step, str):
            step._validate_params()
    _refuse_pairs(classifier)
    if select is not None and select < 1:
        raise ValueError(f"select is {select}, expected at least 1")
    return Pipeline(steps)


def weights_of_items(kind: str, class_weight: str | None, target: np.ndarray) -> dict[str, np.ndarray]:
    """Arguments for a pipeline's `fit` that weigh classes, for an estimator that weighs items alone."""
    if kind != "naive_bayes" or class_weight is None:
        return {}
    from sklearn.utils.class_weight import compute_sample_weight

    return {"classifier__sample_weight": compute_sample_weight(class_weight, target)}


def search_grid(grid: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """A grid by the pipeline's names: `select` is a step's, everything else the classifier's."""
    return {"select__k" if name == "select" else f"classifier__{name}": values for name, values in grid.items()}


def check_grid(pipeline: Any, grid: Mapping[str, list[Any]]) -> None:
    """Check a grid against a pipeline of `make_pipeline`, which it changes.

    Raises:
        ValueError: a parameter is unknown or has no values or wrong ones.
    """
    for name, values in search_grid(grid).items():
        step, _, parameter = name.partition("__")
        if not values:
            raise ValueError(f"search.grid has no values of {parameter}")
        for value in values:
            pipeline.named_steps[step].set_params(**{parameter: value})._validate_params()
            _refuse_pairs(pipeline.named_steps["classifier"])
            if value == 0 and step == "select":
                raise ValueError("search.grid has a select of 0, expected at least 1")


def _refuse_pairs(classifier: Any) -> None:
    """`log_probabilities` takes an SVM's margins for those of classes; with "ovo" they are of pairs of classes."""
    if (shape := getattr(classifier, "decision_function_shape", "ovr")) != "ovr":
        raise ValueError(f"decision_function_shape is {shape!r}, expected 'ovr', a margin for each class")


def log_probabilities(pipeline: Any, inputs: np.ndarray, n_classes: int) -> np.ndarray:
    """Logarithms of the classes' probabilities, ``(items, n_classes)`` float32, at least that of 1e-12.

    An estimator without probabilities (the SVM) gives its margins instead, whose softmax is no calibrated probability.
    A class that did not occur in training has the least.

    Args:
        inputs: ``(items, features)`` float32.
    """
    classifier = pipeline[-1]
    if hasattr(classifier, "predict_proba"):
        own = np.log(np.maximum(pipeline.predict_proba(inputs), _LEAST))
    else:
        margin = pipeline.decision_function(inputs)
        margin = np.stack([-margin, margin], axis=1) / 2 if margin.ndim == 1 else margin
        own = margin - np.logaddexp.reduce(margin, axis=1, keepdims=True)
    result = np.full((len(inputs), n_classes), np.log(_LEAST), dtype=np.float32)
    result[:, classifier.classes_] = np.maximum(own, np.log(_LEAST))
    return result
