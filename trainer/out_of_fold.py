"""The out-of-fold predictions of a group: each item by the members that were trained without its fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_loader.classes import has_poor_quality
from data_loader.subject import Subject
from logger.log import get_logger
from model.context import in_context
from model.decision import Priors, decide
from model.metric import SCORINGS
from trainer.coarser import Coarser
from trainer.evaluation import predict_split, with_noise
from trainer.group import Group, Part
from trainer.report import Report, evaluate_predictions
from trainer.trained import Trained
from utils.errors import UserError
from utils.versions import command_line, environment

logger = get_logger(__name__)

SPLIT = "out-of-fold"


class OutOfFold(NamedTuple):
    """Predictions of all items, each by what was not trained on it.

    Attributes:
        table: one row an item, by item number, with `target` and `fold`.
        probabilities: of each member and seed, ``(items, classes)`` float32 in the order of the table.
        subject: what is classified.
        data: a fingerprint of each split of the data.
    """

    table: pd.DataFrame
    probabilities: dict[tuple[str, int], NDArray[np.float32]]
    subject: Subject
    data: dict[str, str]

    def mean(self, member: str | None = None, seed: int | None = None) -> NDArray[np.float32]:
        """The mean of the probabilities over members and seeds, or over those of one of them."""
        chosen = [
            prob
            for (its_member, its_seed), prob in self.probabilities.items()
            if member in (None, its_member) and seed in (None, its_seed)
        ]
        return np.mean(chosen, axis=0, dtype=np.float64).astype(np.float32)


def predict_out_of_fold(group: Group, load: Callable[[Part], Trained]) -> OutOfFold:
    """Predict the validation items of each part of a group by its own network.

    Args:
        load: gives a trained part.

    Raises:
        UserError: see `predict_split`; or the folds are no partition of the items, since the data changed.
    """
    found: dict[tuple[str, int], list[pd.DataFrame]] = {}
    for part in group.parts:
        logger.info("%s: predicts its fold", part.name)
        predicted = predict_split(load(part), "valid")
        probabilities = pd.DataFrame(predicted.probabilities, index=predicted.table.index)
        table = predicted.table.assign(fold=part.fold)
        found.setdefault((part.member, part.seed), []).append(
            pd.concat({"table": table, "prob": probabilities}, axis=1)
        )
    runs = {key: pd.concat(folds).sort_index() for key, folds in found.items()}
    table = next(iter(runs.values()))["table"]
    for own in runs.values():
        if not own.index.is_unique or not own["table"][["fold", "target"]].equals(table[["fold", "target"]]):
            raise UserError(group.name, "its folds are no longer a partition of the items", "begin it anew")
    probabilities = {key: own["prob"].to_numpy() for key, own in runs.items()}
    return OutOfFold(table, probabilities, predicted.subject, predicted.data)


def out_of_fold_report(
    found: OutOfFold,
    group: Group,
    classes: Sequence[str],
    parameters: Mapping[str, int],
    minutes: Mapping[str, float],
    priors: Priors | None,
    coarser: Coarser | None = None,
) -> Report:
    """Scores of the whole ensemble and of each member and seed alone.

    Args:
        classes: names, in order, of what is scored.
        parameters: how many a network of each member has.
        minutes: that each part took.
        priors: of the members together. They are of all folds: in the class proportions by which events are taken in
            context, the labels of an event's own fold have their small part.
        coarser: how their classes are put together, if they are.
    """
    table, subject, merged = found.table, found.subject, None
    if coarser:
        table = table.assign(target=coarser.target(table["target"].to_numpy()))
        subject, merged = coarser.subject, coarser.groups
    folds, target = table["fold"].to_numpy(), table["target"].to_numpy()
    rule, context = group.first.get("decide", "argmax"), group.first.get("recording_context", False)

    def final(prob: NDArray[np.float32]) -> NDArray[np.float32]:
        return in_context(prob, table["wav_name"], priors) if context else prob

    def scored(prob: NDArray[np.float32]) -> dict[str, Any]:
        decided = decide(final(prob), rule, None, has_poor_quality(classes), merged)
        return _by_fold(target, decided, folds, len(classes), subject.scoring)

    whole = scored(found.mean())
    extra = {
        **{name: value for name, value in whole.items() if name == "folds" or name.endswith(("_mean", "_std"))},
        "members": {
            name: {**scored(found.mean(member=name)), "parameters": parameters[name]} for name in group.members
        },
        "seeds": {str(seed): scored(found.mean(seed=seed)) for seed in group.seeds},
        "parameters": sum(parameters[part.member] for part in group.parts),
        "minutes": {part.name: round(minutes.get(part.name, 0.0), 3) for part in group.parts},
        "minutes_together": round(sum(minutes.get(part.name, 0.0) for part in group.parts), 3),
        "command": command_line(),
        "data": found.data,
        "config": {name: member.to_dict() for name, member in group.members.items()},
        "environment": environment(),
    }
    report = evaluate_predictions(
        with_noise(table, group.first),
        final(found.mean()),
        classes,
        subject,
        SPLIT,
        group.first.seed,
        extra=extra,
        rule=rule,
        priors=priors,
        alone=found.mean() if context else None,
        merged=merged,
    )
    predictions = report.predictions.copy()
    predictions.insert(2, "fold", folds)
    return dataclasses.replace(report, predictions=predictions)


def _by_fold(
    target: NDArray[np.int64], prediction: NDArray[np.int64], folds: NDArray[np.int64], n: int, scoring: str
) -> dict[str, Any]:
    """The scores of all items together, of each fold, and the mean and deviation of the latter."""

    def scores(rows: NDArray[np.bool_]) -> dict[str, float | None]:
        confusion = np.bincount(target[rows] * n + prediction[rows], minlength=n * n).reshape(n, n)
        return {name: float(v) if np.isfinite(v) else None for name, v in SCORINGS[scoring](confusion).items()}

    result: dict[str, Any] = scores(np.ones(len(target), bool))
    each = [{"fold": int(fold), "n": int((folds == fold).sum()), **scores(folds == fold)} for fold in np.unique(folds)]
    for name in list(result):
        values = [own[name] for own in each if own[name] is not None]
        result[f"{name}_mean"] = float(np.mean(values)) if values else None
        result[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {**result, "folds": each}


def summary(metrics: Mapping[str, Any]) -> str:
    """The content of an out-of-fold metrics.json as a table: the ensemble, its members and its seeds."""
    figure = "score" if "score" in metrics else "accuracy"
    rows = [("all together", metrics, metrics["parameters"])]
    rows += [(name, own, own["parameters"]) for name, own in metrics["members"].items() if len(metrics["members"]) > 1]
    rows += [(f"seed {seed}", own, None) for seed, own in metrics["seeds"].items() if len(metrics["seeds"]) > 1]
    title = f"out of fold, {figure}"
    width = max(len(name) for name in [title, *(name for name, _, _ in rows)]) + 2
    lines = [f"  {title:<{width}}{'pooled':>8}{'mean of folds':>15}{'deviation':>11}{'parameters':>13}"]
    for name, own, parameters in rows:
        cells = f"{_text(own[figure]):>8}{_text(own[f'{figure}_mean']):>15}{_text(own[f'{figure}_std']):>11}"
        size = "" if parameters is None else f"{parameters:,}"
        lines.append(f"  {name:<{width}}{cells}{size:>13}".rstrip())
    scores = ", ".join(_text(own[figure]) for own in metrics["folds"])
    lines += ["", f"  each fold: {scores}"]
    lines += [f"  {metrics['minutes_together']:.1f} minutes of training in {len(metrics['minutes'])} runs"]
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def paths_of(folder: Path) -> tuple[Path, Path]:
    """Where a group's out-of-fold report and its ensemble are."""
    return folder / "oof", folder / "model_best.pth"
