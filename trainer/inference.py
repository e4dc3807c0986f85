"""Running a model over a whole split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from base.base_model import Detailed
from data_loader.frontend import InputSpec
from logger.progress import progress_bar
from utils.device import autocast, plain_module
from utils.distributed import gather, rank
from utils.errors import UserError


class Predictions(NamedTuple):
    """Of a whole split, on the CPU.

    Attributes:
        output: ``(items, classes)`` float32 logits.
        target: ``(items,)`` int64 class indices.
        index: ``(items,)`` int64 item numbers in the data set.
    """

    output: Tensor
    target: Tensor
    index: Tensor


def predict(
    model: nn.Module,
    frontend: nn.Module,
    loader: DataLoader,
    device: torch.device,
    precision: str = "fp32",
    description: str = "predict",
    between: Callable[[], None] = lambda: None,
) -> Predictions:
    """Run a model in evaluation mode over all items of a loader, each once.

    Args:
        model: gives logits; its training mode is put back afterwards.
        frontend: turns loaded batches into model input.
        loader: of `Batch` items.
        device: of the model.
        precision: fp32, bf16 or fp16.
        description: of the progress bar.
        between: called before each batch; it may raise.

    Returns:
        In the order of the loader; with several processes, of all of them, by item number.
    """
    modes = model.training, frontend.training
    # Processes may have different numbers of batches here; the wrapper would wait for the others.
    network = plain_module(model)
    model.eval()
    frontend.eval()
    outputs, targets, indices = [], [], []
    with torch.inference_mode():
        for batch in progress_bar(loader, desc=description, leave=False, disable=rank() != 0):
            between()
            # Not around the loader: in this process it may resample, which half precision would spoil.
            with autocast(precision, device):
                outputs.append(model_output(network, frontend, batch, device).float())
            targets.append(batch.target)
            indices.append(batch.index)
    model.train(modes[0])
    frontend.train(modes[1])
    # A process may have no item at all: of several, there are fewer items than processes.
    mine = torch.cat(indices) if indices else torch.empty(0, dtype=torch.int64)
    output = gather(torch.cat(outputs) if outputs else torch.empty(0))
    target = gather(torch.cat(targets) if targets else torch.empty_like(mine))
    index = gather(mine)
    if len(index) != len(mine):
        order = index.argsort(stable=True)
        output, target, index = output[order], target[order], index[order]
    return Predictions(output, target, index)


def model_output(model: nn.Module, frontend: nn.Module, batch: NamedTuple, device: torch.device) -> Tensor | Detailed:
    """What a model gives for a batch: logits; in training mode, one with `details` gives these beside them."""
    return model(*model_inputs(model, frontend, batch, device))


def model_inputs(
    model: nn.Module, frontend: nn.Module, batch: NamedTuple, device: torch.device
) -> tuple[Tensor] | tuple[Tensor, Tensor | None]:
    """A model's arguments for a batch; one that `takes_lengths` also gets how much of each item is no padding."""
    if not plain_module(model).takes_lengths:
        return (to_input(frontend, batch, device),)
    with torch.autocast(device.type, enabled=False):
        return frontend.with_lengths(*_on_device(batch, device))


def to_input(frontend: nn.Module, batch: NamedTuple, device: torch.device) -> Tensor:
    """The model input of a batch, on the device; pictures with their channels last in memory, which is faster."""
    # In single precision: half of it would be too coarse for a spectrogram's range.
    with torch.autocast(device.type, enabled=False):
        inputs = frontend(*_on_device(batch, device))
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def _on_device(batch: NamedTuple, device: torch.device) -> tuple[Tensor, Tensor | None]:
    lengths = None if batch.lengths is None else batch.lengths.to(device, non_blocking=True)
    return batch.data.to(device, non_blocking=True), lengths


def refuse_other_input(path: Path, then: InputSpec, now: InputSpec) -> None:
    """Refuse features that differ from those that a checkpoint was trained on.

    Raises:
        UserError: names `path` and the first difference.
    """
    for key in ("method", "params", "shape", "weights", "rate", "duration"):
        if getattr(then, key) != getattr(now, key):
            what = f"was trained on features with {key} {getattr(then, key)!r}, these have {getattr(now, key)!r}"
            raise UserError(path, what, "preprocess as for the training")
    if (then.input_dir is None) != (now.input_dir is None):
        stored, computed = "stored features", "features computed in the step"
        kinds = (stored, computed) if then.input_dir is not None else (computed, stored)
        raise UserError(path, f"was trained on {kinds[0]}, these are {kinds[1]}", "take the input of the training")
