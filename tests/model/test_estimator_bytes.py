"""Bytes of a checkpoint that somebody changed."""

from __future__ import annotations

import io
import json
import os
import zipfile

import numpy as np
import pytest
import skops.io

from model.estimator_bytes import pack, unpack
from tests.model.test_sklearn_classifier import PARAMS, fitted


@pytest.fixture(scope="module")
def packed():
    """The bytes of one of each kind."""
    return {kind: fitted(kind).fitted.numpy().tobytes() for kind in PARAMS}


def changed(data: bytes, edit) -> bytes:
    """The archive with its description changed by ``edit(text) -> text``."""
    source, buffer = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, edit(content.decode()) if name == "schema.json" else content)
    return buffer.getvalue()


def refused(data: bytes, kind: str) -> str:
    with pytest.raises(ValueError) as raised:
        unpack(data, kind)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kind", PARAMS)
def test_what_was_packed_comes_back(packed, kind):
    inputs = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    pipeline = unpack(packed[kind], kind)
    assert (pipeline.predict(inputs) == skops_pipeline(packed[kind]).predict(inputs)).all()


def skops_pipeline(data):
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


@pytest.mark.parametrize(
    "module, name", [("os", "system"), ("builtins", "eval"), ("numpy", "add"), ("sklearn.cluster._kmeans", "KMeans")]
)
def test_another_object_is_named_and_not_made(packed, module, name):
    def edit(text):
        schema = json.loads(text)
        function = find(schema, "FunctionNode")
        function["__module__"], function["__class__"] = module, name
        return json.dumps(schema)

    assert f"holds {module}.{name}, which could run code" in refused(changed(packed["svm"], edit), "svm")


@pytest.mark.parametrize("loader", ["PartialNode", "OperatorFuncNode", "MethodNode", "None", ""])
def test_another_way_to_make_an_object_is_refused(packed, loader):
    def edit(text):
        schema = json.loads(text)
        find(schema, "FunctionNode")["__loader__"] = loader
        return json.dumps(schema)

    assert "is not loaded" in refused(changed(packed["svm"], edit), "svm")


def test_code_in_an_estimator_is_not_run(packed, tmp_path):
    pipeline = skops_pipeline(packed["naive_bayes"])
    pipeline.steps[-1] = ("classifier", Runs(str(tmp_path / "made")))
    assert "Runs, which could run code" in refused(skops.io.dumps(pipeline), "naive_bayes")
    assert not (tmp_path / "made").exists()


class Runs:
    def __init__(self, path):
        self.path = path

    def __setstate__(self, state):
        os.mkdir(state["path"])  # noqa: PTH102


def find(part, loader):
    """The first description of that kind."""
    if isinstance(part, dict):
        if part.get("__loader__") == loader:
            return part
        part = list(part.values())
    found = (find(each, loader) for each in part) if isinstance(part, list) else ()
    return next((each for each in found if each is not None), None)


def spoilt(kind: str, data: bytes, spoil) -> bytes:
    pipeline = skops_pipeline(data)
    spoil(pipeline[-1])
    return skops.io.dumps(pipeline)


def with_tree(**changes):
    def spoil(forest):
        tree = forest.estimators_[3].tree_
        state = tree.__getstate__()
        nodes = state["nodes"].copy()
        for name, value in changes.items():
            if name == "node_count":
                state["node_count"] = value
            else:
                nodes[name][0] = value
        state["nodes"] = nodes
        tree.__setstate__(state)

    return spoil


def with_nodes(**changes):
    def spoil(boosting):
        for name, value in changes.items():
            boosting._predictors[2][0].nodes[name][0] = value

    return spoil


def with_array(name, index, value):
    def spoil(estimator):
        array = np.array(getattr(estimator, name))
        array[index] = value
        setattr(estimator, name, array)

    return spoil


def shortened(name):
    def spoil(estimator):
        setattr(estimator, name, np.ascontiguousarray(getattr(estimator, name)[..., :-1]))

    return spoil


@pytest.mark.parametrize(
    "kind, spoil",
    [
        ("random_forest", with_tree(left_child=10**6)),
        ("random_forest", with_tree(left_child=0)),  # for ever in a circle
        ("random_forest", with_tree(right_child=-7)),
        ("random_forest", with_tree(feature=8)),
        ("gradient_boosting", with_nodes(left=10**6)),
        ("gradient_boosting", with_nodes(right=0)),
        ("gradient_boosting", with_nodes(feature_idx=-1)),
        ("gradient_boosting", with_nodes(is_categorical=1)),
        ("knn", with_array("_y", 3, 10**6)),
        ("knn", shortened("_y")),
        ("svm", with_array("_n_support", 0, 10**6)),
        ("svm", shortened("_dual_coef_")),
        ("svm", shortened("support_")),
        ("logistic_regression", shortened("coef_")),
        ("naive_bayes", shortened("theta_")),
        ("naive_bayes", with_array("classes_", 0, -5)),
    ],
)
def test_indices_that_would_reach_beyond_the_arrays_are_refused(packed, kind, spoil):
    assert "its estimator is" in refused(spoilt(kind, packed[kind], spoil), kind)


@pytest.mark.parametrize("shape", ["ovo", None])
def test_an_svm_with_margins_of_pairs_of_classes_is_refused(packed, shape):
    def spoil(svm):
        svm.decision_function_shape = shape

    assert "a margin for each class" in refused(spoilt("svm", packed["svm"], spoil), "svm")


def test_a_tree_that_says_it_is_larger_than_it_is_is_refused(packed):
    data = spoilt("random_forest", packed["random_forest"], with_tree(node_count=5))
    count = '"content": "5"'

    def edit(text):
        assert count in text
        return text.replace(count, '"content": "100000000"')

    assert "its estimator is" in refused(changed(data, edit), "random_forest")


def test_another_estimator_than_the_config_names_is_refused(packed):
    assert "not a svm" in refused(packed["knn"], "svm").replace("an svm", "a svm")


def test_damaged_bytes_are_refused(packed):
    data = packed["naive_bayes"]
    random = np.random.default_rng(0)
    assert "damaged" in refused(b"", "naive_bayes")
    assert "damaged" in refused(data[: len(data) // 2], "naive_bayes")
    for _ in range(30):
        flipped = bytearray(data)
        flipped[random.integers(len(data))] ^= 1 << int(random.integers(8))
        try:
            unpack(bytes(flipped), "naive_bayes")  # a bit that nothing reads, such as of a date
        except ValueError as error:
            assert "its estimator is" in str(error)  # noqa: PT017


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(packed):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "[" + " " * 10**7 + "]")
    assert "as large as it says" in refused(buffer.getvalue(), "svm")


def test_nothing_is_packed_that_would_not_come_back(packed):
    pipeline = skops_pipeline(packed["svm"])
    with pytest.raises(ValueError, match="not a knn"):
        pack(pipeline, "knn")
