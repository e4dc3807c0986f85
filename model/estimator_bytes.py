"""A fitted pipeline of `estimators.py` as bytes and back. Bytes from elsewhere run no code and read no foreign memory.

skops writes an archive of arrays and of a description of the objects that hold them. It makes objects of many types by
default; here only of those that these pipelines consist of. And since scikit-learn trusts the indices in a fitted
tree, k-NN or SVM without looking at them, they are looked at here first.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

from model.estimators import estimator_class, log_probabilities

_STEPS = ["variance", "scale", "select", "classifier"]
_MOST_FEATURES = 1 << 20
_BOOSTING = "sklearn.ensemble._hist_gradient_boosting"
_TRUSTED = {
    *("builtins.dict", "builtins.list", "builtins.str", "builtins.tuple"),
    *(f"numpy.{name}" for name in ("ndarray", "float32", "float64", "int32", "int64", "uint64", "bool")),
    "numpy.random._generator.Generator",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._label.LabelEncoder",
    "sklearn.feature_selection._variance_threshold.VarianceThreshold",
    "sklearn.feature_selection._univariate_selection.SelectKBest",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.naive_bayes.GaussianNB",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.neighbors._classification.KNeighborsClassifier",
    "sklearn.svm._classes.SVC",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.tree._tree.Tree",
    f"{_BOOSTING}.gradient_boosting.HistGradientBoostingClassifier",
    f"{_BOOSTING}.binning._BinMapper",
    f"{_BOOSTING}.predictor.TreePredictor",
    *(f"sklearn._loss._loss.CyHalf{name}Loss" for name in ("Binomial", "Multinomial")),
    *(f"sklearn._loss.loss.Half{name}Loss" for name in ("Binomial", "Multinomial")),
    *(f"sklearn._loss.link.{name}" for name in ("Interval", "LogitLink", "MultinomialLogit")),
}
# How an object is made of its description: none of these calls anything but its type.
_LOADERS = {f"{name}Node" for name in ("Dict", "List", "Json", "Type", "Tuple", "NdArray", "Object", "Function")}
_LOADERS |= {"TreeNode", "LossNode", "RandomGeneratorNode", "CachedNode"}


def pack(pipeline: Any, kind: str) -> bytes:
    """A fitted pipeline as bytes.

    Raises:
        ValueError: `unpack` would refuse it.
    """
    from skops import io as skops_io

    data = skops_io.dumps(pipeline)
    unpack(data, kind)
    return data


def unpack(data: bytes, kind: str) -> Any:
    """The fitted pipeline that `pack` packed.

    Args:
        kind: of its classifier.

    Raises:
        ValueError: it is none, is damaged, or holds what such a pipeline does not; the message is a clause.
    """
    from skops import io as skops_io

    try:
        _check_archive(data)
        pipeline = skops_io.loads(data, trusted=sorted(_TRUSTED))
        _check_pipeline(pipeline, kind)
        few = np.zeros((1, pipeline[0].n_features_in_), dtype=np.float32)
        classes = pipeline[-1].classes_
        _expect(np.isfinite(log_probabilities(pipeline, few, int(classes.max()) + 1)).all(), "its output is finite")
    except _Refused:
        raise
    except Exception as error:
        # Objects are made of what any description says, and anything can be wrong with one.
        raise ValueError(f"its estimator is damaged ({type(error).__name__})") from error
    return pipeline


class _Refused(ValueError):
    """Something that no pipeline of this project holds."""


def _expect(fine: Any, what: str) -> None:
    if not fine:
        raise _Refused(f"its estimator is not loaded: not {what}")


def _check_archive(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # skops compresses nothing unless told to.
        _expect(sum(part.file_size for part in archive.infolist()) <= len(data), "as large as it says")
        schema = json.loads(archive.read("schema.json"))
    parts = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            _check_part(part)
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _check_part(part: dict[str, Any]) -> None:
    """Look at the description of an object."""
    if "__class__" in part or "__loader__" in part:
        name = f"{part['__module__']}.{part['__class__']}"
        if name not in _TRUSTED or part["__loader__"] not in _LOADERS:
            raise _Refused(f"its estimator is not loaded: it holds {name}, which could run code")
    if part.get("__loader__") == "TreeNode":
        # Already making the tree reads as many numbers of classes as it has outputs.
        _expect(part["__reduce__"]["args"]["content"][2]["content"] == "1", "a tree with one output")


def _check_pipeline(pipeline: Any, kind: str) -> None:
    from sklearn.feature_selection import SelectKBest, VarianceThreshold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    _expect(type(pipeline) is Pipeline and [name for name, _ in pipeline.steps] == _STEPS, "a pipeline of its steps")
    variance, scale, select, classifier = (step for _, step in pipeline.steps)
    _expect(type(variance) is VarianceThreshold and type(select) is SelectKBest, "a selection of features")
    _expect(scale == "passthrough" or type(scale) is StandardScaler, "a scaling")
    _expect(type(classifier) is estimator_class(kind), f"a {kind}")
    n_features = variance.n_features_in_
    _expect(type(n_features) is int and 0 < n_features <= _MOST_FEATURES, "a number of features")
    classes = classifier.classes_
    _expect(classes.dtype == np.int64 and classes.ndim == 1 and classes.min() >= 0, "a list of classes")
    if kind == "random_forest":
        _check_forest(classifier)
    elif kind == "gradient_boosting":
        _check_boosting(classifier)
    elif kind == "knn":
        _check_neighbours(classifier)
    elif kind == "svm":
        _check_svm(classifier)


def _check_nodes(left: np.ndarray, right: np.ndarray, feature: np.ndarray, inner: np.ndarray, n_features: int) -> None:
    """Of a tree's inner nodes, both children come later, so that no way is endless, and all indices are in range."""
    number = np.arange(len(left))[inner]
    for child in (left[inner].astype(np.int64), right[inner].astype(np.int64)):
        _expect(((child > number) & (child < len(left))).all(), "a tree")
    _expect(len(left) and ((feature[inner] >= 0) & (feature[inner] < n_features)).all(), "a tree of its features")


def _check_forest(forest: Any) -> None:
    from sklearn.tree import DecisionTreeClassifier

    _expect(len(forest.estimators_) and forest.n_outputs_ == 1, "a forest")
    for each in forest.estimators_:
        _expect(type(each) is DecisionTreeClassifier, "a forest of trees")
        tree = each.tree_
        # First of all: what a tree shows of itself is as long as it says.
        _expect(0 < tree.node_count <= tree.capacity and tree.n_features == forest.n_features_in_, "a tree")
        _expect(tree.max_n_classes == len(forest.classes_), "a tree of its classes")
        _check_nodes(tree.children_left, tree.children_right, tree.feature, tree.children_left != -1, tree.n_features)


def _check_boosting(boosting: Any) -> None:
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    n_classes = len(boosting.classes_)
    for iteration in boosting._predictors:
        _expect(len(iteration) == (1 if n_classes == 2 else n_classes), "a tree for each class")
        for each in iteration:
            _expect(type(each) is TreePredictor, "made of trees")
            nodes = each.nodes
            _expect(nodes.ndim == 1 and not nodes["is_categorical"].any(), "a tree of numbers")
            _check_nodes(
                nodes["left"], nodes["right"], nodes["feature_idx"], nodes["is_leaf"] == 0, boosting.n_features_in_
            )


def _check_neighbours(knn: Any) -> None:
    _expect(knn._fit_X.shape == (len(knn._y), knn.n_features_in_) and knn._y.dtype == np.int64, "neighbours")
    _expect(((knn._y >= 0) & (knn._y < len(knn.classes_))).all(), "neighbours of its classes")
    _expect(knn._fit_method == "brute", "a search of all neighbours")


def _check_svm(svm: Any) -> None:
    n_classes, count = len(svm.classes_), len(svm.support_vectors_)
    shapes = [svm.support_vectors_.shape, svm._dual_coef_.shape, svm._intercept_.shape]
    shapes += [svm.support_.shape, svm._n_support.shape]
    wanted = [(count, svm.n_features_in_), (n_classes - 1, count), (n_classes * (n_classes - 1) // 2,)]
    _expect(shapes == [*wanted, (count,), (n_classes,)], "an SVM")
    _expect((svm._n_support >= 0).all() and svm._n_support.sum() == count, "an SVM of its support vectors")
    # A precomputed kernel picks columns of its input by number.
    _expect(svm.kernel in ("linear", "poly", "rbf", "sigmoid"), "an SVM with a known kernel")
    # What `log_probabilities` takes its margins for.
    _expect(svm.decision_function_shape == "ovr", "an SVM with a margin for each class")
    _expect(not svm._sparse and not svm._effective_probability and svm._probA.size == 0, "an SVM")
