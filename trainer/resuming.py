"""Whether a checkpoint's task, data and weights are those of the run that goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from base.base_data_loader import BaseDataLoader
from base.saved_state import misfit
from data_loader.frontend import InputSpec
from trainer.ema import WeightAverage
from trainer.inference import refuse_other_input
from utils.checkpoint import is_state_dict, load_weights
from utils.errors import UserError


def refuse_other_task(state: Mapping[str, Any], path: Path, classes: tuple[str, ...], spec: InputSpec) -> None:
    """Refuse a checkpoint of other classes or of other input.

    Args:
        state: of the checkpoint `path`.
        classes, spec: of the run.

    Raises:
        UserError: it is one.
    """
    if tuple(state["classes"]) != classes:
        raise UserError(str(path), f"knows the classes {', '.join(state['classes'])}", "the task has others")
    try:
        then = InputSpec.from_dict(state["input"])
    except UserError as error:
        raise UserError(path, f"does not fit this program: {error}") from error
    refuse_other_input(path, then, spec)


def refuse_other_split(state: Mapping[str, Any], path: Path, loader: BaseDataLoader, data: Mapping[str, str]) -> None:
    """Patients of the validation must not come into training, nor the other way round.

    Args:
        state: of the checkpoint `path`.
        data: a fingerprint of each split of the data's tables.

    Raises:
        UserError: the data or its split changed.
    """
    then = state.get("data")
    if isinstance(then, dict):
        changed = [name for name, digest in data.items() if then.get(name, digest) != digest]
        # What is not loaded may change: a test set may be released meanwhile.
        if changed := sorted({*changed} & {*loader.dataset.table["split"]}):
            what = f"its split {changed[0]} is not that of {path}: items or labels changed"
            raise UserError(loader.dataset.data_dir, what, "put the data back, or start a new run")
    if state.get("split") not in (None, loader.split_digest()):
        what = f"splits patients otherwise than that of {path}"
        raise UserError("data_loader.args", what, "keep seed, split and the shards of the store, or start a new run")


def weights_state(model: nn.Module, average: WeightAverage | None) -> dict[str, Any]:
    """The weights in a checkpoint: those to test under ``state_dict``; with an average, the trained ones beside it."""
    if average is None:
        return {"state_dict": model.state_dict()}
    return {
        "state_dict": average.model.state_dict(),
        "training_state": model.state_dict(),
        "ema": {"decay": average.decay, "steps": average.steps},
    }


def load_weights_state(
    checkpoint: Mapping[str, Any], path: Path, model: nn.Module, average: WeightAverage | None
) -> None:
    """Take back what `weights_state` gave.

    Raises:
        UserError: the weights do not fit the model, or the checkpoint was made with another average.
    """
    state = checkpoint.get("ema")
    then = state.get("decay") if isinstance(state, Mapping) else None
    if then != (now := average.decay if average else None):
        shown, saved = ("null" if decay is None else decay for decay in (now, then))
        hint = "a resumed run keeps it; start a new run to change it"
        raise UserError("trainer.ema", f"is {shown}, but {path} was trained with {saved}", hint)
    if average is None:
        load_weights(model, checkpoint["state_dict"], path)
        return
    training = checkpoint.get("training_state")
    if problem := misfit(state, {"decay": 0.0, "steps": 0}, "ema"):
        raise UserError(path, f"does not fit this run: {problem}", "start a new run")
    if not is_state_dict(training):
        raise UserError(path, "does not fit this run: its training_state holds no weights", "start a new run")
    load_weights(average.model, checkpoint["state_dict"], path)
    load_weights(model, training, path)
    average.steps = state["steps"]
