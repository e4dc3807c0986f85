"""The same training under Lightning's Trainer, as it comes: its logger and progress bar, no checkpoints."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from training_case import Batches, Parts, wait


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


def lightning_epoch(
    parts: Parts, batches: Batches, precision: str, device: torch.device, grad_clip: float | None, folder: Path
) -> float:
    """Seconds of one pass over the batches; making the Trainer is not counted.

    `grad_clip` goes unused: Lightning refuses it for a fused optimizer, and an optimizer that is not would be slower.
    """
    clock = _Clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # batches in memory need no workers
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision={"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}[precision],
            enable_checkpointing=False,
            callbacks=[clock],
            default_root_dir=folder,
        )
        trainer.fit(_Module(parts), DataLoader(list(zip(*batches, strict=True)), batch_size=None))
    parts.model.to(device)  # Lightning has taken it to the CPU.
    return clock.seconds
