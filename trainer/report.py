"""The evaluation of a split: scores with confidence intervals, a printed report, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_loader.classes import has_poor_quality
from data_loader.subject import Subject
from logger import figures
from model.decision import RULES, Priors, decide
from model.ensemble import merge
from model.metric import SCORINGS
from trainer.bootstrap import confidence_intervals
from trainer.subgroups import subgroups, worst_subgroup
from utils.errors import UserError
from utils.files import atomic_path, write_json

PARTS = ("inter", "intra")


@dataclass(frozen=True)
class Report:
    """What was measured on a split.

    Attributes:
        metrics: the content of metrics.json, see DESIGN section 6. What is undefined is None.
        predictions: one row an item, the content of predictions.csv.
        groups: what the items belong to, in the plural.
    """

    metrics: dict[str, Any]
    predictions: pd.DataFrame
    groups: str = "patients"

    def table(self) -> str:
        """The report as text: one block for the split, and one for each of its parts."""
        title = f"task {self.metrics['task']}, split {self.metrics['split']}"
        if (rule := self.metrics["decide"]) != "argmax":
            title += f", decided by {rule}"
        blocks = [_block(self.metrics, title, self.groups)]
        if alone := self.metrics.get("each_event_alone"):
            score = _text(alone["score"])
            blocks.append(f"each event was decided beside the others of its recording; by itself: score {score}")
        if worst := self.metrics.get("worst_subgroup"):
            of = f"{worst['n']:,} items of {worst['n_patients']:,} {self.groups}"
            blocks.append(f"worst subgroup: {worst['name']}, score {worst['score']:.3f} ({of})")
        blocks += [_block(self.metrics[part], part, self.groups) for part in PARTS if part in self.metrics]
        return "\n\n".join(blocks)

    def save(self, out_dir: str | Path) -> None:
        """Write predictions.csv, confusion_matrix.png and, last, metrics.json. The folder is made if missing."""
        out_dir = Path(out_dir)
        with atomic_path(out_dir / "predictions.csv") as aside:
            # File names may hold bytes that are no UTF-8; they are written as they are.
            table = _without_formulas(self.predictions)
            table.to_csv(aside, index=False, lineterminator="\n", errors="surrogateescape")
        metrics = self.metrics
        title = f"task {metrics['task']}, {metrics['split']}"
        figure = figures.confusion_figure(metrics["confusion_matrix"], metrics["classes"], title)
        figures.save(figure, out_dir / "confusion_matrix.png")
        write_json(out_dir / "metrics.json", metrics)


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A spreadsheet computes text that begins like a formula; an apostrophe in front keeps it text (OWASP)."""
    names = {column: table[column].astype(str) for column in ("wav_name", "patient_id", "group") if column in table}
    return table.assign(
        **{column: text.where(~text.str.match(r"[=+\-@\t\r]"), "'" + text) for column, text in names.items()}
    )


def evaluate_predictions(
    table: pd.DataFrame,
    prob: NDArray[np.float32],
    classes: Sequence[str],
    subject: Subject,
    split: str,
    seed: int = 0,
    n_bootstrap: int = 1000,
    extra: Mapping[str, Any] | None = None,
    rule: str = "argmax",
    priors: Priors | None = None,
    alone: NDArray[np.float32] | None = None,
    merged: Sequence[Sequence[int]] | None = None,
) -> Report:
    """Score the predictions of a split.

    Args:
        table: one row an item: wav_name, patient_id (or group, see `Subject`), split, target (index of the class)
            and, for events, event_id, start_ms, end_ms, or start, end. A split whose rows come from both "inter" and
            "intra" is also reported by part. With the columns that `subgroups` takes, these are reported too.
        prob: ``(n, classes)`` probabilities.
        classes: names, in order. Where there is a normal one it is the first; in task 2 Poor Quality is the second.
        subject: what is classified.
        split: name of what is evaluated.
        seed: of the bootstrap. The same seed gives the same numbers.
        n_bootstrap: number of resamples.
        extra: further entries of metrics.json: what is needed to repeat it (config, commit, versions, command).
        rule: how the prediction follows from the probabilities, see `decide`.
        priors: of the model; with them, the scores of every rule are reported as `decisions`.
        alone: where `prob` is of events in the context of their recordings, that of each by itself; its scores are
            reported too.
        merged: where `prob`, `alone` and `priors` are of finer classes: for each class, those that it is made of.

    Raises:
        UserError: there is no item, or the model's output is not finite.
        ValueError: sizes do not fit, a target is no class, or `extra` would hide a result.
    """
    fine, target = np.asarray(prob), table["target"].to_numpy().astype(np.int64)
    prob = merge(fine, merged)
    if prob.shape != (len(table), len(classes)):
        raise ValueError(f"need probabilities ({len(table)}, {len(classes)}), got {prob.shape}")
    if not len(table):
        raise UserError(f"split {split}", "there is nothing to evaluate", "choose another split or data folder")
    if bad := int((~np.isfinite(prob)).any(1).sum()):
        what = f"the model's output is not finite for {bad} of {len(prob)} items"
        raise UserError(f"split {split}", what, "the training diverged: use an earlier checkpoint or a lower lr")
    if target.min() < 0 or target.max() >= len(classes):
        raise ValueError(f"targets must lie in 0..{len(classes) - 1}, got {target.min()}..{target.max()}")

    rules = [name for name in RULES if priors or name != "score"]
    decisions = {name: _decided(fine, classes, name, priors, merged) for name in rules}
    prediction = decisions[rule]
    group = table[subject.group_column].to_numpy().astype(str)

    def measured(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return _measure(target[rows], prediction[rows], group[rows], list(classes), subject, seed, n_bootstrap)

    metrics: dict[str, Any] = {"task": subject.task, "split": split, **measured(np.ones(len(table), bool))}
    metrics["decide"] = rule
    metrics["decisions"] = {
        name: _scores(_confusion(target, decided, len(classes)), subject.scoring)
        for name, decided in decisions.items()
    }
    if alone is not None:
        without = _confusion(target, _decided(alone, classes, rule, priors, merged), len(classes))
        metrics["each_event_alone"] = _scores(without, subject.scoring)
    source = table["split"].to_numpy()
    if all((source == part).any() for part in PARTS):
        metrics |= {part: measured(source == part) for part in PARTS}
    parts = subgroups(table, target, prediction, classes, subject.scoring)
    if parts is not None:
        metrics |= {"subgroups": parts, "worst_subgroup": worst_subgroup(parts)}
    extra = dict(extra or {})
    if clash := sorted(extra.keys() & metrics.keys()):
        raise ValueError(f"extra would hide {', '.join(clash)}")

    names = np.array(classes, dtype=object)
    columns = ("wav_name", subject.group_column, "event_id", "start_ms", "end_ms", "start", "end")
    predictions = table[[column for column in columns if column in table]].reset_index(drop=True)
    predictions["target"], predictions["prediction"] = names[target], names[prediction]
    predictions = pd.concat([predictions, pd.DataFrame(prob, columns=[f"prob_{name}" for name in classes])], axis=1)
    return Report(metrics | extra, predictions, subject.groups)


def _measure(
    target: NDArray[np.int64],
    prediction: NDArray[np.int64],
    group: NDArray[Any],
    classes: list[str],
    subject: Subject,
    seed: int,
    n_bootstrap: int,
) -> dict[str, Any]:
    n = len(classes)
    confusion = _confusion(target, prediction, n)
    return {
        "n": len(target),
        f"n_{subject.groups}": len(np.unique(group)),
        "classes": classes,
        **_scores(confusion, subject.scoring),
        "confusion_matrix": confusion.tolist(),
        "per_class": {name: _class(confusion, index) for index, name in enumerate(classes)},
        "ci95": confidence_intervals(target, prediction, group, n, subject.scoring, seed, n_bootstrap),
    }


def _decided(
    prob: NDArray[np.float32],
    classes: Sequence[str],
    rule: str,
    priors: Priors | None,
    merged: Sequence[Sequence[int]] | None,
) -> NDArray[np.int64]:
    return decide(prob, rule, priors, has_poor_quality(classes), merged)


def _confusion(target: NDArray[np.int64], prediction: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.bincount(target * n + prediction, minlength=n * n).reshape(n, n)


def _scores(confusion: NDArray[np.int64], scoring: str) -> dict[str, float | None]:
    return {name: _number(value) for name, value in SCORINGS[scoring](confusion).items()}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _class(confusion: NDArray[np.int64], index: int) -> dict[str, int | float | None]:
    """Recall and F1 are undefined for a class that does not occur, precision for one that is never predicted."""
    hit, support, predicted = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    return {
        "support": support,
        "recall": hit / support if support else None,
        "precision": hit / predicted if predicted else None,
        "f1": 2 * hit / (support + predicted) if support else None,
    }


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _block(metrics: Mapping[str, Any], title: str, groups: str) -> str:
    classes = metrics["classes"]
    lines = [f"{title}: {metrics['n']:,} items of {metrics[f'n_{groups}']:,} {groups}"]
    lines.append(f"  {'':<16}{'':>7}  95 % interval over {groups}")
    for name, interval in metrics["ci95"].items():
        span = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "[n/a]"
        lines.append(f"  {name.replace('_', ' '):<16}{_text(metrics[name]):>7}  {span}")
    width = max(len(name) for name in [*classes, "class"]) + 2
    lines += ["", f"  {'class':<{width}}{'support':>9}{'recall':>9}{'precision':>11}{'F1':>7}"]
    for name in classes:
        row = metrics["per_class"][name]
        numbers = f"{_text(row['recall']):>9}{_text(row['precision']):>11}{_text(row['f1']):>7}"
        lines.append(f"  {name:<{width}}{row['support']:>9,}{numbers}")
    first = max(width, 23)
    widths = [max(len(name), len(f"{metrics['n']:,}")) + 2 for name in classes]
    header = "".join(f"{name:>{w}}" for name, w in zip(classes, widths, strict=True))
    lines += ["", f"  {'annotated / predicted':<{first}}{header}"]
    for name, counts in zip(classes, metrics["confusion_matrix"], strict=True):
        cells = "".join(f"{count:>{w},}" for count, w in zip(counts, widths, strict=True))
        lines.append(f"  {name:<{first}}{cells}")
    return "\n".join(lines)
