"""Testing a checkpoint on a split of its data."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import torch

from data_loader import data_loaders
from data_loader.fingerprint import refuse_changed_audio
from data_loader.frontend import Frontend
from logger.log import get_logger
from trainer.check import check_loader
from trainer.inference import predict, refuse_other_input
from trainer.report import Report, evaluate_predictions
from trainer.setup import make_loader
from trainer.trained import Trained
from utils.errors import UserError
from utils.versions import command_line, environment

logger = get_logger(__name__)


def evaluate(trained: Trained, split: str | None = None) -> Report:
    """Score a checkpoint on a split.

    Args:
        split: "train", "valid", "test" (its parts together), "inter", "intra", or another of the table. None takes
            the test set where there is one, else the validation.

    Raises:
        UserError: there is no such split, or the data, the features or the classes are not those of the training.
    """
    config = trained.config
    try:
        args = check_loader(config)
    except UserError as error:
        raise UserError(
            trained.path, f"its config cannot be used: {error.subject} {error.what}", error.hint
        ) from error
    present = data_loaders[config["data_loader"]["type"]].known_splits(args)
    tests = [name for name in ("inter", "intra", "test") if name in present]
    if split is None:
        split = "test" if tests else "valid"
        logger.info("no --split was named: this is %s", split)
    # The checkpoint brings its own normalisation: none is measured on what is scored.
    loading = config.changed("data_loader.args", normalize=False) if "normalize" in args else config
    if split in ("train", "valid"):
        loader = make_loader(loading)
        if split == "valid" and not len(loader.valid_indices):
            raise UserError("--split valid", "the checkpoint was trained without validation", "take another split")
        if split == "valid" and config.get("trainer.monitor", "off").split()[-1].startswith("val_"):
            logger.warning("the epoch was chosen on these very items: the scores are a little too good")
    else:
        table_split = "+".join(tests) if split == "test" and tests else split
        loader = make_loader(loading.changed("data_loader.args", split=table_split, validation_split=0, shuffle=False))
    if loader.classes != trained.classes:
        raise UserError(trained.path, f"knows the classes {', '.join(trained.classes)}", "the task has others")
    refuse_other_input(trained.path, trained.spec, loader.input_spec)
    dataset, items = loader.dataset, loader.valid_indices if split == "valid" else loader.train_indices
    data = dataset.fingerprint()
    # The items trained on, too: where they changed, those that are scored may have been among them.
    splits = {*args["split"].split("+"), *dataset.table["split"]}
    _refuse_other_data(trained, dataset.data_dir, data, splits)
    refuse_changed_audio(dataset.table.iloc[items], dataset.data_dir)

    frontend = Frontend(trained.spec).to(trained.device)
    found = predict(trained.model, frontend, loader.ordered(items), trained.device, trained.precision, f"{split}")
    table = dataset.table.iloc[found.index.numpy()].assign(target=found.target.numpy())
    extra = {
        "checkpoint": str(trained.path),
        "epoch": trained.epoch,
        "seed": config.seed,
        "precision": trained.precision,
        "command": command_line(),
        "trained_with": trained.origins,
        "data": data,
        "config": config.to_dict(),
        "environment": environment(),
    }
    probabilities = torch.softmax(found.output, dim=1).numpy()
    return evaluate_predictions(
        table, probabilities, trained.classes, dataset.subject, split, config.seed, extra=extra
    )


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
        hint = f"put back the data of {trained.path}, or train anew; score other data from a folder of its own"
        raise UserError(data_dir, what, hint)
