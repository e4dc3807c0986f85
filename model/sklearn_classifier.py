"""Classical classifiers of scikit-learn as an architecture: fitted once, on all training items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from base.base_model import BaseModel
from logger.log import get_logger
from model import architectures
from model.estimator_bytes import pack, unpack
from model.estimators import (
    Kind,
    check_grid,
    log_probabilities,
    make_pipeline,
    search_grid,
    weights_of_items,
)
from utils.arguments import check_arguments
from utils.errors import UserError

logger = get_logger(__name__)


def _search_arguments(grid: dict[str, list], folds: int = 5) -> None:
    """What `search` holds."""


@architectures.register()
class SklearnClassifier(BaseModel):
    """Selection of features, scaling and a classifier, see `estimators.py`, for items ``(features,)``.

    A checkpoint holds the fitted pipeline as bytes that run no code, see `estimator_bytes.py`.

    Args:
        label_dim: number of classes.
        estimator: the classifier.
        params: its parameters, by scikit-learn's names.
        scale: bring each feature to mean 0 and deviation 1 of the training items.
        select: keep this many features, those that tell the classes apart best by themselves; None keeps all.
        class_weight: "balanced" weighs items inversely to the frequency of their class. k-NN cannot.
        search: choose parameters by cross-validation on the training items, patients kept together:
            ``{"grid": {"C": [0.1, 1], "select": [20, 60]}, "folds": 5}``. The combination with the best balanced
            accuracy is fitted on all of them.
    """

    fits_at_once = True

    def __init__(
        self,
        label_dim: int,
        estimator: Kind,
        params: dict[str, Any] | None = None,
        scale: bool = True,
        select: int | None = None,
        class_weight: Literal["balanced"] | None = None,
        search: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.label_dim, self.kind, self.search = label_dim, estimator, search
        self.class_weight = class_weight
        self._settings = (params or {}, scale, select, class_weight)
        # The fitted pipeline, as long as it comes out; empty before.
        self.register_buffer("fitted", torch.empty(0, dtype=torch.uint8))
        self._pipeline: Any = None

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        if len(shape) != 1 or shape[0] < 1:
            return f"SklearnClassifier takes (features,), as summary gives, the items are {tuple(shape)}"
        kind = args["estimator"]
        if kind == "knn" and args["class_weight"]:
            return "knn takes no class_weight"
        try:
            settings = [args[name] for name in ("scale", "select", "class_weight")]
            pipeline = make_pipeline(kind, args["params"] or {}, *settings)
            if args["search"] is not None:
                search = check_arguments(_search_arguments, args["search"], "search")
                if search["folds"] < 2:
                    return f"search.folds is {search['folds']}, expected at least 2"
                check_grid(pipeline, search["grid"])
        except UserError as error:
            return f"{error.subject} {error.what}"
        except ValueError as error:
            return str(error).split("\n")[0].split("Valid parameters are")[0].strip(" .")
        return None

    def fit(self, inputs: Tensor, target: Tensor, groups: np.ndarray) -> None:
        """Fit on all training items; draws its seed from torch's generator.

        Raises:
            UserError: the estimator cannot be fitted on them.
        """
        x, y = inputs.cpu().numpy(), target.cpu().numpy()
        seed = int(torch.randint(2**31, ()))
        pipeline = make_pipeline(self.kind, *self._settings, seed)
        weights = weights_of_items(self.kind, self.class_weight, y)
        if self.kind == "knn" and (neighbors := pipeline[-1].n_neighbors) > len(x):
            what = f"is {neighbors}, for {len(x)} training items"
            raise UserError("arch.args.params.n_neighbors", what, "take fewer")
        try:
            if self.search is not None:
                pipeline = self._searched(pipeline, x, y, groups, weights, seed)
            else:
                pipeline.fit(x, y, **weights)
            data = pack(pipeline, self.kind)
        except ValueError as error:
            raise UserError("arch.args", f"cannot be fitted: {str(error).splitlines()[0]}") from error
        self._pipeline = pipeline
        self.fitted = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self.fitted.device)

    def _searched(
        self, pipeline: Any, x: np.ndarray, y: np.ndarray, groups: np.ndarray, weights: dict[str, Any], seed: int
    ) -> Any:
        """The pipeline with the best parameters of the grid, fitted on all items."""
        from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

        search = check_arguments(_search_arguments, self.search, "arch.args.search")
        folds = StratifiedGroupKFold(search["folds"], shuffle=True, random_state=seed % 2**31)
        grid = search_grid(search["grid"])
        found = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=folds, error_score="raise")
        found.fit(x, y, groups=groups, **weights)
        named = {name: found.best_params_[its] for its, name in zip(grid, search["grid"], strict=True)}
        best = ", ".join(f"{name} {value}" for name, value in named.items())
        logger.info("search: %s, balanced accuracy %.4f in cross-validation", best, found.best_score_)
        return found.best_estimator_

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of probabilities ``(batch, label_dim)`` of items ``(batch, features)``; of the SVM, margins.

        Raises:
            RuntimeError: it is not fitted.
            UserError: it was fitted on other features.
        """
        if self._pipeline is None:
            raise RuntimeError("it is not fitted yet")
        if x.shape[1] != self._pipeline[0].n_features_in_:
            what = f"was fitted on {self._pipeline[0].n_features_in_} features, the items have {x.shape[1]}"
            raise UserError("the estimator", what, "preprocess as for the training")
        return torch.from_numpy(log_probabilities(self._pipeline, x.cpu().numpy(), self.label_dim)).to(x.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """No gradient reaches an estimator."""
        return []

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        """Take the fitted pipeline, of whatever length.

        Raises:
            ValueError: see `unpack`.
        """
        fitted = state_dict[f"{prefix}fitted"]
        pipeline = unpack(fitted.cpu().numpy().tobytes(), self.kind)
        if int(pipeline[-1].classes_.max()) >= self.label_dim:
            raise ValueError(f"its estimator knows more than {self.label_dim} classes")
        self._pipeline, self.fitted = pipeline, fitted.clone()
