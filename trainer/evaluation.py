"""Testing a checkpoint on a split of its data."""

from __future__ import annotations

import sys

import torch

from data_loader.frontend import Frontend
from data_loader.resp_data_loader import data_folder
from data_loader.tables import read_table
from logger.log import get_logger
from trainer.check import check_loader
from trainer.inference import predict, refuse_other_input
from trainer.report import Report, evaluate_predictions
from trainer.setup import make_loader
from trainer.trained import Trained
from utils.errors import UserError
from utils.versions import environment

logger = get_logger(__name__)


def evaluate(trained: Trained, split: str | None = None) -> Report:
    """Score a checkpoint on a split.

    Args:
        split: "train", "valid", "test" (its parts together), "inter", "intra", or another of the table. None takes
            the test set where there is one, else the validation.

    Raises:
        UserError: there is no such split, or the features are not those of the training.
    """
    config = trained.config
    try:
        check_loader(config)
    except UserError as error:
        raise UserError(
            trained.path, f"its config cannot be used: {error.subject} {error.what}", error.hint
        ) from error
    args = config.get("data_loader.args", {})
    present = set(read_table(data_folder(args), args.get("task", 1), args.get("filtered", False))["split"])
    tests = [name for name in ("inter", "intra", "test") if name in present]
    if split is None:
        split = "test" if tests else "valid"
        logger.info("no --split was named: this is %s", split)
    # The checkpoint brings its own normalisation: none is measured on what is scored.
    loading = config.changed("data_loader.args", normalize=False)
    if split in ("train", "valid"):
        loader = make_loader(loading)
        batches = loader.evaluation(split)
        if trained.data not in (None, loader.dataset.fingerprint()):
            logger.warning("the data is not that of the training: items of %s may have been on the other side", split)
        if split == "valid" and not len(loader.valid_indices):
            raise UserError("--split valid", "the checkpoint was trained without validation", "take another split")
        if split == "valid" and config.get("trainer.monitor", "off").split()[-1].startswith("val_"):
            logger.warning("the epoch was chosen on these very items: the scores are a little too good")
    else:
        table_split = "+".join(tests) if split == "test" and tests else split
        loader = make_loader(loading.changed("data_loader.args", split=table_split, validation_split=0, shuffle=False))
        batches = loader.evaluation("train")
    if loader.classes != trained.classes:
        raise UserError(trained.path, f"knows the classes {', '.join(trained.classes)}", "the task has others")
    refuse_other_input(trained.path, trained.spec, loader.input_spec)

    frontend = Frontend(trained.spec).to(trained.device)
    found = predict(trained.model, frontend, batches, trained.device, trained.precision, f"{split}")
    dataset = loader.dataset
    table = dataset.table.iloc[found.index.numpy()].assign(target=found.target.numpy())
    extra = {
        "checkpoint": str(trained.path),
        "epoch": trained.epoch,
        "seed": config.seed,
        "precision": trained.precision,
        "command": " ".join(sys.argv),
        "data": dataset.fingerprint(),
        "config": config.to_dict(),
        "environment": environment(),
    }
    probabilities = torch.softmax(found.output, dim=1).numpy()
    return evaluate_predictions(
        table, probabilities, trained.classes, dataset.task, dataset.level, split, config.seed, extra=extra
    )
