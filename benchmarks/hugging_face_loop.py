"""The same training under Hugging Face's Trainer, as it comes: its logging and progress bar, no checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training_case import Parts, Turn, build_parts, in_memory, wait

from utils.config import ConfigParser
from utils.device import choose_precision


class _WithLoss(nn.Module):
    """What the Trainer wants: a model that returns its loss."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.model, self.criterion = parts.model, parts.criterion

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(inputs)
        return {"loss": self.criterion(logits, labels), "logits": logits}


class _Clock(transformers.TrainerCallback):
    seconds = 0.0

    def on_epoch_begin(self, args: transformers.TrainingArguments, *others: Any, **more: Any) -> None:
        wait(args.device)
        self._start = time.perf_counter()

    def on_epoch_end(self, args: transformers.TrainingArguments, *others: Any, **more: Any) -> None:
        wait(args.device)
        self.seconds = time.perf_counter() - self._start


class _Trainer(transformers.Trainer):
    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_size=None)


def prepare(config: ConfigParser, device: torch.device, steps: int, folder: Path) -> Turn:
    """A turn of so many steps over batches in memory; making the Trainer is not counted."""
    batches, parts = in_memory(config, device, steps), build_parts(config, device)
    precision = choose_precision(config["trainer"]["precision"], device)
    args = transformers.TrainingArguments(
        output_dir=str(folder / "hugging_face"),
        num_train_epochs=1,
        per_device_train_batch_size=len(batches.targets[0]),
        use_cpu=device.type == "cpu",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        max_grad_norm=config["trainer"]["grad_clip"],
        save_strategy="no",
    )
    items = [{"inputs": inputs, "labels": labels} for inputs, labels in zip(*batches, strict=True)]

    def turn() -> float:
        clock = _Clock()
        # A new module each time: the Trainer changes the forward of the one it gets.
        optimizers = (parts.optimizer, None)
        _Trainer(_WithLoss(parts), args, train_dataset=items, optimizers=optimizers, callbacks=[clock]).train()
        return batches.items / clock.seconds

    return turn
