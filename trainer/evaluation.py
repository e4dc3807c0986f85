"""Testing a checkpoint on a split of its data."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from data_loader import data_loaders
from data_loader.fingerprint import refuse_changed_audio
from data_loader.frontend import Frontend
from data_loader.noise import noise_of_rows
from data_loader.resp_data_loader import data_folder
from data_loader.splits import HELD_OUT, has_test_part
from data_loader.subject import Subject
from logger.log import get_logger
from model.context import in_context
from trainer.building import make_loader
from trainer.deciding import refuse_context, refuse_rule
from trainer.inference import predict, refuse_other_input
from trainer.report import Report, evaluate_predictions
from trainer.section_check import check_loader
from trainer.trained import Trained
from utils.config import ConfigParser
from utils.errors import UserError
from utils.versions import command_line, environment

logger = get_logger(__name__)


class Predicted(NamedTuple):
    """The predictions of a split.

    Attributes:
        table: the data set's rows, in the order of the predictions, by item number; with a column `target`.
        probabilities: ``(items, classes)`` float32; of the members' classes, where the checkpoint has `finer` ones.
        subject: what is classified.
        data: a fingerprint of each split of the data.
    """

    table: pd.DataFrame
    probabilities: np.ndarray
    subject: Subject
    data: dict[str, str]


def evaluate(trained: Trained, split: str | None = None, rule: str | None = None) -> Report:
    """Score a checkpoint on a split.

    Args:
        split: see `predict_split`. None takes the test set where there is one, else the validation.
        rule: how the predictions follow from the probabilities, see `decide`; None: as the checkpoint's config says.

    Raises:
        UserError: see `predict_split`; or the checkpoint does not hold what the rule needs.
    """
    rule = rule or trained.rule
    refuse_rule(trained, rule)
    refuse_context(trained.path, trained.in_context, trained.member_priors)
    config = trained.config
    if split is None:
        split = "test" if _tests(trained) or _holds_out(trained) else "valid"
        logger.info("no --split was named: this is %s", split)
    found = predict_split(trained, split)
    prob, alone = found.probabilities, None
    if trained.in_context:
        prob, alone = in_context(prob, found.table["wav_name"], trained.member_priors), prob
    table = with_noise(found.table, config)
    extra = {
        "checkpoint": str(trained.path),
        "epoch": trained.epoch,
        "seed": config.seed,
        "precision": trained.precision,
        "command": command_line(),
        "trained_with": trained.origins,
        "data": found.data,
        "config": config.to_dict(),
        "environment": environment(),
    }
    return evaluate_predictions(
        table,
        prob,
        trained.classes,
        found.subject,
        split,
        config.seed,
        extra=extra,
        rule=rule,
        priors=trained.member_priors or trained.priors,
        alone=alone,
        merged=trained.finer,
    )


def with_noise(table: pd.DataFrame, config: ConfigParser) -> pd.DataFrame:
    """A table of lung sounds with the column `noise_db`; without it where the audio is not there, only features."""
    if "rec_id" not in table:
        return table
    try:
        return table.assign(noise_db=noise_of_rows(table, data_folder(config.get("data_loader.args", {}))))
    except UserError as error:
        logger.info("the report has no subgroups by noise: %s", error)
        return table


def _loader_args(trained: Trained) -> dict[str, Any]:
    try:
        return check_loader(trained.config)
    except UserError as error:
        raise UserError(
            trained.path, f"its config cannot be used: {error.subject} {error.what}", error.hint
        ) from error


def _tests(trained: Trained) -> list[str]:
    """The parts of the test set that there are."""
    present = data_loaders[trained.config["data_loader"]["type"]].known_splits(_loader_args(trained))
    return [name for name in ("inter", "intra", "test") if name in present]


def _holds_out(trained: Trained) -> bool:
    """Whether a part of the training set was held out."""
    return has_test_part(_loader_args(trained).get("validation_split"))


def predict_split(trained: Trained, split: str) -> Predicted:
    """Predict the items of a split.

    Args:
        split: "train", "valid", "test" (its parts together), "inter", "intra", or another of the table; "held_out" is
            the test part of a `validation_split` that has one, and so is "test" where the data has no test set.

    Raises:
        UserError: there is no such split, or the data, the features or the classes are not those of the training.
    """
    config, args = trained.config, _loader_args(trained)
    # The checkpoint brings its own normalisation: none is measured on what is scored. Details are for training.
    unneeded = {"normalize": False, "details": None}
    loading = config.changed("data_loader.args", **{key: unneeded[key] for key in unneeded.keys() & args.keys()})
    if split == HELD_OUT and not _holds_out(trained):
        what = "the checkpoint was trained without a test part of its own"
        raise UserError(f"--split {HELD_OUT}", what, 'that comes with a validation_split like "64/16/20"')
    held_out = split == HELD_OUT or (split == "test" and _holds_out(trained) and not _tests(trained))
    if split in ("train", "valid") or held_out:
        if split == "valid" and trained.out_of_fold is not None:
            what = "all items were trained on"
            raise UserError("--split valid", what, f"the out-of-fold scores are in {trained.out_of_fold}")
        loader = make_loader(loading)
        if split == "valid" and not len(loader.valid_indices):
            raise UserError("--split valid", "the checkpoint was trained without validation", "take another split")
        if split == "valid" and config.get("trainer.monitor", "off").split()[-1].startswith("val_"):
            logger.warning("the epoch was chosen on these very items: the scores are a little too good")
    else:
        tests = _tests(trained)
        table_split = "+".join(tests) if split == "test" and tests else split
        loader = make_loader(loading.changed("data_loader.args", split=table_split, validation_split=0, shuffle=False))
    if loader.classes != trained.classes:
        raise UserError(trained.path, f"knows the classes {', '.join(trained.classes)}", "the task has others")
    refuse_other_input(trained.path, trained.spec, loader.input_spec)
    dataset, items = loader.dataset, loader.valid_indices if split == "valid" else loader.train_indices
    items = loader.test_indices if held_out else items
    data = dataset.fingerprint()
    # The items trained on, too: where they changed, those that are scored may have been among them.
    splits = {*args["split"].split("+"), *dataset.table["split"]}
    _refuse_other_data(trained, dataset.data_dir, data, splits)
    if (split == "valid" or held_out) and trained.split not in (None, loader.split_digest()):
        what = f"its items are split otherwise than in the training of {trained.path}: some may have been trained on"
        hint = "put back the program and the shards of the store as they were, or train anew"
        raise UserError(dataset.data_dir, what, hint)
    refuse_changed_audio(dataset.table.iloc[items], dataset.data_dir)

    frontend = Frontend(trained.spec).to(trained.device)
    found = predict(
        trained.finest_model, frontend, loader.ordered(items), trained.device, trained.precision, f"{split}"
    )
    index = found.index.numpy()
    table = dataset.table.iloc[index].set_axis(index).assign(target=found.target.numpy())
    probabilities = torch.softmax(found.output, dim=1).numpy()
    return Predicted(table, probabilities, dataset.subject, data)


def _refuse_other_data(trained: Trained, data_dir: Path, now: Mapping[str, str], splits: Set[str]) -> None:
    """Refuse data that changed since the training, in any of `splits` that there was then and is now.

    A folder without the training's recordings, as of another data set's test recordings, has nothing to compare.
    """
    if trained.data is None:
        logger.warning("%s does not say what data it was trained on: whether that changed is unknown", trained.path)
        return
    then = trained.data
    if changed := [name for name in sorted(splits & now.keys() & then.keys()) if now[name] != then[name]]:
        what = f"its split {changed[0]} is not that of the training: recordings, labels, cuts or patients changed"
        hint = f"put back the data of {trained.path}, or train anew; score other data as the split test of a folder"
        raise UserError(data_dir, what, hint)
