from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from model.sklearn_classifier import SklearnClassifier
from utils.arguments import check_arguments
from utils.checkpoint import load_weights
from utils.errors import UserError

# Small ones, with the parameters of a config.
PARAMS = {
    "naive_bayes": {},
    "logistic_regression": {"C": 0.5},
    "knn": {"n_neighbors": 3},
    "svm": {"gamma": 0.1},
    "random_forest": {"n_estimators": 10, "max_depth": 4},
    "gradient_boosting": {"max_iter": 5, "min_samples_leaf": 5},
}
every_kind = pytest.mark.parametrize("kind", PARAMS)


def items(n: int = 90, classes: int = 3, features: int = 8, shift: float = 2.0, seed: int = 0):
    """Classes that lie apart in the first two features, of 9 patients each with items of all classes."""
    random = np.random.default_rng(seed)
    target = np.arange(n) % classes
    inputs = random.normal(size=(n, features))
    inputs[:, 0] += shift * target
    inputs[:, 1] -= shift * target
    inputs[:, 2] = 5.0
    groups = np.array([f"p{number // classes % 9}" for number in range(n)])
    return torch.from_numpy(inputs).float(), torch.from_numpy(target), groups


def fitted(kind, data=None, seed=0, **args):
    data = items() if data is None else data
    model = SklearnClassifier(int(data[1].max()) + 1, kind, **{"params": PARAMS[kind], **args})
    torch.manual_seed(seed)
    model.fit(*data)
    return model


def problem(shape=(180,), **args):
    args = {"label_dim": 2, "estimator": "svm", **args}
    return SklearnClassifier.input_problem(check_arguments(SklearnClassifier, args, "arch.args"), shape)


@every_kind
@pytest.mark.parametrize("classes", [2, 3])
def test_it_tells_classes_apart_that_lie_apart(kind, classes):
    inputs, target, groups = items(classes=classes)
    output = fitted(kind, (inputs, target, groups))(inputs)
    assert (output.shape, output.dtype) == ((90, classes), torch.float32)
    assert (output.argmax(1) == target).float().mean() > 0.9
    torch.testing.assert_close(output.exp().sum(1), torch.ones(90), atol=1e-4, rtol=0)


@every_kind
def test_a_state_dict_brings_all_that_was_fitted(kind, tmp_path):
    inputs, model = items()[0], fitted(kind)
    other = SklearnClassifier(3, kind, params=PARAMS[kind])
    load_weights(other, model.state_dict(), tmp_path)
    assert torch.equal(other(inputs), model(inputs))
    assert torch.equal(other.state_dict()["fitted"], model.state_dict()["fitted"])


@pytest.mark.parametrize("kind", ["random_forest"])
def test_the_seed_decides_what_is_random(kind):
    inputs = items()[0]
    outputs = [fitted(kind, seed=seed)(inputs) for seed in (3, 3, 4)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("kind", [kind for kind in PARAMS if kind != "knn"])
def test_balanced_weights_find_more_of_a_rare_class(kind):
    inputs, target, groups = items(600, classes=2, shift=0.7)
    rare = torch.cat([torch.where(target == 0)[0], torch.where(target == 1)[0][:40]])
    data = inputs[rare], target[rare], groups[rare.numpy()]
    recalls = []
    for weight in (None, "balanced"):
        output = fitted(kind, data, class_weight=weight)(inputs)
        recalls.append(float((output.argmax(1) == 1)[target == 1].float().mean()))
    assert recalls[1] > recalls[0] + 0.1


def test_a_class_without_items_is_never_predicted():
    inputs, target, groups = items(classes=2)
    model = SklearnClassifier(4, "naive_bayes")
    model.fit(inputs, 2 * target, groups)
    output = model(inputs)
    assert set(output.argmax(1).tolist()) == {0, 2}
    assert output.isfinite().all()


def test_features_are_selected_within_each_fold_of_a_search(caplog):
    # Labels have nothing to do with the features. Of 3000, the ten that tell these 60 items apart best do so in the
    # fold that was left out as well, if it had a part in choosing them.
    random = np.random.default_rng(0)
    inputs = torch.from_numpy(random.normal(size=(60, 3000))).float()
    target = torch.arange(60) % 2
    groups = np.array([f"p{number // 2}" for number in range(60)])
    with caplog.at_level(logging.INFO):
        search = {"grid": {"var_smoothing": [1e-9]}, "folds": 5}
        fitted("naive_bayes", (inputs, target, groups), select=10, search=search)
    score = float(caplog.messages[-1].split("balanced accuracy ")[1].split()[0])
    assert score < 0.7


def test_a_search_keeps_patients_together(caplog):
    # A patient is known by the features, and the label is the patient's: only one of the same patient could tell it.
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 6)
    inputs = torch.from_numpy(random.normal(size=(40, 5))[patient] + 0.01 * random.normal(size=(240, 5))).float()
    target = torch.from_numpy(random.permutation(np.arange(40) % 2)[patient])
    groups = np.array([f"p{number}" for number in patient])
    with caplog.at_level(logging.INFO):
        fitted("knn", (inputs, target, groups), search={"grid": {"n_neighbors": [1]}, "folds": 4})
    score = float(caplog.messages[-1].split("balanced accuracy ")[1].split()[0])
    assert score < 0.75


def test_a_search_takes_the_best_parameters_and_fits_them_on_all(caplog):
    caplog.set_level(logging.INFO)
    data = items()
    grid = {"n_neighbors": [1, 50], "select": [2, 8]}
    found = fitted("knn", data, search={"grid": grid, "folds": 3})
    again = fitted("knn", data, params={"n_neighbors": 1}, select=found._pipeline["select"].k)
    assert found._pipeline[-1].n_neighbors == 1
    assert f"search: n_neighbors 1, select {found._pipeline['select'].k}, " in caplog.text
    assert torch.equal(found(data[0]), again(data[0]))


@pytest.mark.parametrize(
    "args, said",
    [
        ({"shape": (1, 224, 224)}, "takes (features,)"),
        ({"params": {"gama": 1}}, "svm has no parameter gama (did you mean gamma"),
        ({"params": {"C": -1}}, "The 'C' parameter of SVC"),
        ({"select": 0}, "select is 0"),
        ({"search": {"grid": {"select": [5, 0]}}}, "a select of 0"),
        ({"search": {"grid": {"select": [-1]}}}, "The 'k' parameter of SelectKBest"),
        ({"estimator": "knn", "class_weight": "balanced"}, "knn takes no class_weight"),
        ({"search": {"grid": {"gama": [1]}}}, "Invalid parameter 'gama'"),
        ({"search": {"grid": {"C": [1, "x"]}}}, "The 'C' parameter of SVC"),
        ({"search": {"grid": {"C": []}}}, "search.grid has no values of C"),
        ({"params": {"decision_function_shape": "ovo"}}, "decision_function_shape is 'ovo', expected 'ovr'"),
        ({"search": {"grid": {"decision_function_shape": ["ovr", "ovo"]}}}, "decision_function_shape is 'ovo'"),
        ({"search": {"grid": {"C": [1]}, "folds": 1}}, "search.folds is 1"),
        ({"search": {"gird": {"C": [1]}}}, "search.gird is unknown"),
    ],
)
def test_arguments_that_cannot_work_are_said_in_one_line_before_anything_is_loaded(args, said):
    found = problem(**args)
    assert said in found
    assert "\n" not in found
    assert problem() is None


def test_items_that_it_cannot_be_fitted_on_are_an_error_of_one_line():
    inputs, target, groups = items()
    inputs[4, 4] = torch.nan
    with pytest.raises(UserError, match=r"cannot be fitted: Input .* contains NaN"):
        SklearnClassifier(3, "svm").fit(inputs, target, groups)
    with pytest.raises(UserError, match="cannot be fitted"):
        SklearnClassifier(3, "logistic_regression").fit(items()[0], torch.zeros(90, dtype=torch.int64), groups)


def test_more_neighbors_than_items_are_named():
    with pytest.raises(UserError, match=r"n_neighbors: is 9, for 6 training items"):
        fitted("knn", items(6), params={"n_neighbors": 9})


def test_what_could_not_be_loaded_again_is_not_saved():
    # Its fitted form is a tree of neighbours, which no checkpoint may hold.
    with pytest.raises(UserError, match="KDTree"):
        fitted("knn", params={"algorithm": "kd_tree"})


def test_other_features_are_refused():
    with pytest.raises(UserError, match="fitted on 8 features, the items have 7"):
        fitted("naive_bayes")(torch.zeros(2, 7))
