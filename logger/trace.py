"""Run a model on the side without leaving a mark on it."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[torch.device]:
    """A block that may run the model, in evaluation mode and without gradients; afterwards all is as before.

    Put back are the mode of every module (a frozen part may stand in evaluation mode in a model that trains), the
    buffers, and the random generators of the CPU and of the model's device. Warnings and prints of the tracer are
    dropped.

    Yields:
        the model's device.
    """
    first = next(model.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            model.eval()
            yield device
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
