"""The same training under Lightning's Trainer, as it comes: its logger and progress bar, no checkpoints."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from training_case import Parts, Turn, build_parts, in_memory, wait

from utils.config import ConfigParser
from utils.device import choose_precision

PRECISION = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}


class _Module(lightning.LightningModule):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.model, self.criterion = parts.model, parts.criterion
        self._optimizer = parts.optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        inputs, target = batch
        return self.criterion(self.model(inputs), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer


class _Clock(lightning.Callback):
    seconds = 0.0

    def on_train_epoch_start(self, trainer: Any, module: _Module) -> None:
        wait(module.device)
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: _Module) -> None:
        wait(module.device)
        self.seconds = time.perf_counter() - self._start


def prepare(config: ConfigParser, device: torch.device, steps: int, folder: Path) -> Turn:
    """A turn of so many steps over batches in memory; making the Trainer is not counted.

    Gradients are not clipped: Lightning refuses that for a fused optimizer, and one that is not fused would be slower.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # batches in memory need no workers
    batches, parts = in_memory(config, device, steps), build_parts(config, device)
    loader = DataLoader(list(zip(*batches, strict=True)), batch_size=None)
    options = {
        "max_epochs": 1,
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": 1,
        "precision": PRECISION[choose_precision(config["trainer"]["precision"], device)],
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }

    def turn() -> float:
        clock = _Clock()
        parts.model.to(device)  # Lightning takes it to the CPU in the end.
        lightning.Trainer(**options, callbacks=[clock]).fit(_Module(parts), loader)
        return batches.items / clock.seconds

    return turn
