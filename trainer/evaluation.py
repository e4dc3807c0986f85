"""Testing a checkpoint: on a split of its data, or on any folder of audio files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.folder import audio_files, folder_batches
from data_loader.frontend import Frontend, InputSpec
from data_loader.resp_data_loader import data_folder
from data_loader.tables import read_table
from logger.log import get_logger
from logger.progress import progress_bar
from trainer.inference import predict, refuse_other_input, to_input
from trainer.report import Report, evaluate_predictions
from trainer.setup import make_loader, make_model
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import ConfigParser
from utils.device import autocast, choose_precision
from utils.errors import UserError
from utils.files import write_json
from utils.versions import environment

logger = get_logger(__name__)


@dataclass(frozen=True)
class Trained:
    """A checkpoint, ready to predict.

    Attributes:
        config: that it was trained with.
        model: in evaluation mode on `device`.
        spec: what its input is.
        classes: class names in the order of the outputs.
        epoch: after which it was saved.
        data: a fingerprint of the data that it was trained on.
    """

    path: Path
    config: ConfigParser
    model: nn.Module
    spec: InputSpec
    classes: tuple[str, ...]
    epoch: int
    device: torch.device
    precision: str
    data: str | None


def load_trained(path: Path, device: torch.device, changes: dict[str, Any] | None = None) -> Trained:
    """Rebuild the model of a checkpoint; nothing but the checkpoint is needed.

    Args:
        changes: of its config's data loader arguments (data_dir, batch_size, num_workers).

    Raises:
        UserError: the file is no checkpoint, or does not fit its own config.
    """
    checkpoint = load_checkpoint(path)
    saved = checkpoint["config"]
    saved["data_loader"].setdefault("args", {}).update(changes or {})
    config = ConfigParser(saved)
    model = make_model(config, restore=True)
    load_weights(model, checkpoint["state_dict"], path)
    model.to(device, memory_format=torch.channels_last).eval()
    precision = choose_precision(config.get("trainer.precision", "fp32"), device)
    spec = InputSpec.from_dict(checkpoint["input"])
    classes, epoch = tuple(checkpoint["classes"]), checkpoint["epoch"]
    return Trained(path, config, model, spec, classes, epoch, device, precision, checkpoint.get("data"))


def evaluate(trained: Trained, split: str | None = None) -> Report:
    """Score a checkpoint on a split.

    Args:
        split: "train", "valid", "test" (its parts together), "inter", "intra", or another of the table. None takes
            the test set where there is one, else the validation.

    Raises:
        UserError: there is no such split, or the features are not those of the training.
    """
    config = trained.config
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


def predict_folder(trained: Trained, folder: Path, batch_size: int = 32) -> dict[str, str]:
    """Predict all audio files below a folder: ``{"a.wav": "Normal", ...}``, the BioCAS challenge's output format.

    Features are computed as in training. For task 1, each file is one event.

    Raises:
        UserError: a file cannot be read, or the features need a network whose weights are not those of the training.
    """
    files = audio_files(folder)
    if trained.spec.weights and weights_fingerprint(trained.spec.params["weights"]) != trained.spec.weights:
        raise UserError(
            trained.spec.params["weights"], "holds other weights than the features of the training were made with"
        )
    frontend = Frontend(trained.spec).to(trained.device).eval()
    predictions = np.empty(len(files), dtype=np.int64)
    with (
        torch.inference_mode(),
        progress_bar(total=len(files), desc="predict", unit="file", leave=False) as bar,
    ):
        for batch in folder_batches(files, trained.spec, batch_size):
            with autocast(trained.precision, trained.device):
                output = trained.model(to_input(frontend, batch, trained.device))
            predictions[batch.index.numpy()] = output.float().argmax(dim=1).cpu().numpy()
            bar.update(len(batch.index))
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: trained.classes[prediction] for name, prediction in zip(names, predictions, strict=True)}


def write_predictions(predictions: dict[str, str], path: Path) -> None:
    """Write predictions as JSON, aside and renamed."""
    try:
        write_json(path, predictions)
    except OSError as error:
        raise UserError(path, f"cannot be written: {error.strerror}") from error
