"""Predicting any folder of audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.folder import audio_files, file_groups, group_batches
from data_loader.frontend import Frontend
from logger.progress import progress_bar
from trainer.deciding import decided, refuse_rule
from trainer.inference import model_output
from trainer.trained import Trained
from utils.device import autocast
from utils.errors import UserError
from utils.files import write_json
from utils.threads import thread_map

# On a CPU few at a time are faster: what passes between the layers stays in its cache.
CPU_BATCH, GPU_BATCH = 8, 32


def predict_folder(
    trained: Trained,
    folder: Path,
    batch_size: int | None = None,
    rule: str | None = None,
    adapt_priors: bool = False,
) -> dict[str, str]:
    """Predict all audio files below a folder: ``{"a.wav": "Normal", ...}``, the BioCAS challenge's output format.

    Features are computed as in training. For task 1, each file is one event. Groups of files are read and predicted
    beside each other, one a thread: memory does not grow with the number of files.

    Args:
        batch_size: files a pass through the model; by default what suits the device.
        rule: see `decide`; None: as the checkpoint's config says.
        adapt_priors: predict for class proportions that are estimated from all of these files, see
            `estimate_proportions`; with "score", among the adventitious classes.

    Raises:
        UserError: a file cannot be read, or the features need a network whose weights are not those of the training;
            or the checkpoint does not hold what the rule or the adaptation needs.
    """
    rule = rule or trained.rule
    refuse_rule(trained, rule, adapt_priors)
    files = audio_files(folder)
    spec, device = trained.spec, trained.device
    if spec.weights and weights_fingerprint(spec.params["weights"]) != spec.weights:
        raise UserError(spec.params["weights"], "holds other weights than the features of the training were made with")
    frontend, model = Frontend(spec).to(device).eval(), trained.finest_model
    batch_size = batch_size or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)

    def predict_group(group: range) -> tuple[range, np.ndarray]:
        # All of them before the context below: features are computed in single precision.
        batches = list(group_batches(files, group, spec, batch_size, device))
        probabilities = []
        with torch.inference_mode(), autocast(trained.precision, device):
            for batch in batches:
                output = model_output(model, frontend, batch, device).float()
                if not output.isfinite().all():
                    bad = batch.index[~output.isfinite().all(dim=1).cpu()][0]
                    what = f"its model gives no finite number for {files[bad]}"
                    raise UserError(trained.path, what, "the training diverged: use an earlier checkpoint")
                probabilities.append(torch.softmax(output, dim=1).cpu().numpy())
        return group, np.concatenate(probabilities)

    finer = trained.finer
    n_classes = sum(map(len, finer)) if finer else len(trained.classes)
    prob = np.empty((len(files), n_classes), dtype=np.float32)
    with progress_bar(total=len(files), desc="predict", unit="file", leave=False) as bar:
        for group, probabilities in thread_map(predict_group, file_groups(files)):
            prob[group.start : group.stop] = probabilities
            bar.update(len(group))
    predictions = decided(trained, prob, rule, adapt_priors)
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: trained.classes[prediction] for name, prediction in zip(names, predictions, strict=True)}


def write_predictions(predictions: dict[str, str], path: Path) -> None:
    """Write predictions as JSON, aside and renamed."""
    try:
        write_json(path, predictions)
    except OSError as error:
        raise UserError(path, f"cannot be written: {error.strerror}") from error
