"""The Trainer: one epoch of training, one validation, and what they log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer, epoch_seed
from base.saved_state import misfit
from data_loader.frontend import InputSpec
from logger.log import get_logger
from logger.progress import progress_bar
from logger.tensorboard import TensorboardWriter
from model.metric import confusion_matrix
from trainer.inference import predict, refuse_other_input, to_input
from trainer.optimization import Schedule
from utils.config import ConfigParser
from utils.device import autocast, choose_precision
from utils.distributed import gather, rank, same_buffers, sum_of_all, world_size
from utils.errors import UserError

logger = get_logger(__name__)

# Seconds between two looks at the running loss, the gradient norm and the speed: each look makes the device wait.
LOG_SECONDS = 2.0


class Trainer(BaseTrainer):
    """Trains a classifier on batches of `Batch`.

    Args:
        model, criterion, metric_ftns, optimizer, config, device: see `BaseTrainer`.
        data_loader: training batches.
        frontend: turns loaded batches into model input; augments in training mode.
        schedule: of the learning rate.
        valid_data_loader: validation batches, or None.
        classes: class names.
        data: a fingerprint of the data, kept in checkpoints: the split follows from the data.
        writer: the TensorBoard log.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        metric_ftns: Mapping[str, Callable[[Tensor, Tensor], float]],
        optimizer: torch.optim.Optimizer,
        config: ConfigParser,
        device: torch.device,
        *,
        data_loader: BaseDataLoader,
        frontend: nn.Module,
        schedule: Schedule,
        valid_data_loader: DataLoader | None = None,
        classes: tuple[str, ...] = (),
        data: str | None = None,
        writer: TensorboardWriter | None = None,
    ) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config, device)
        self.data_loader = data_loader
        # DataLoader draws a seed when it starts its workers; not from the generator that dropout draws from.
        self.data_loader.generator = torch.Generator()
        self.valid_data_loader = valid_data_loader
        self.frontend = frontend
        self.schedule = schedule
        self.classes = classes
        self.data = data
        self.precision = choose_precision(config.get("trainer.precision", "fp32"), device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.grad_clip: float | None = config.get("trainer.grad_clip")
        self.accumulate: int = config.get("trainer.accumulate", 1)
        # Whether a step takes more than one batch.
        self.several = self.accumulate > 1 or world_size() > 1
        self.writer = writer
        self.global_step = 0
        self._mass = torch.zeros((), device=device)
        if config.resume:
            self._resume_checkpoint(config.resume)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return -(-len(self.data_loader) // self.accumulate)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        self.frontend.train()
        self.data_loader.set_epoch(epoch)
        outputs: list[Tensor] = []
        targets: list[Tensor] = []
        n_batches = len(self.data_loader)
        # Dropout and augmentation depend on (seed, epoch), as the order of items does: a resumed run continues them.
        torch.manual_seed(epoch_seed(self.config.seed, epoch, rank()))
        started = looked = time.perf_counter()
        seen = seen_at_look = 0
        with progress_bar(self.data_loader, desc=f"epoch {epoch}", leave=False, disable=rank() != 0) as bar:
            for number, batch in enumerate(bar, start=1):
                self._stop_if_asked()
                target = batch.target.to(self.device, non_blocking=True)
                inputs = to_input(self.frontend, batch, self.device)
                with autocast(self.precision, self.device):
                    output = self.model(inputs)
                loss = self.criterion(output, target)
                self._backward(loss, target)
                seen += len(target)
                outputs.append(output.detach().float())
                targets.append(target)
                if number % self.accumulate == 0 or number == n_batches:
                    now = time.perf_counter()
                    look = now - looked > LOG_SECONDS or number == n_batches
                    grad_norm = self._step(measure=look)
                    if look:
                        speed = (seen - seen_at_look) / (time.perf_counter() - looked)
                        self._log_step(bar, loss, grad_norm, speed)
                        looked, seen_at_look = time.perf_counter(), seen
        seconds = time.perf_counter() - started
        figures = self._figures(gather(torch.cat(outputs)), gather(torch.cat(targets)))
        self._write("train", figures, epoch)
        same_buffers(self.model)
        valid_figures = self._valid_epoch(epoch)
        figures |= {f"val_{name}": value for name, value in valid_figures.items()}
        self.schedule.after_epoch(figures)
        return figures | {"samples_per_second": seen / seconds}

    def _backward(self, loss: Tensor, target: Tensor) -> None:
        """Add a batch's gradients.

        The loss is a mean, weighted by class. With several batches a step, of one process or of several, each is
        multiplied by the sum of its weights here and their sum divided by all weights in `_step`: the same as one
        large batch.
        """
        if self.several:
            weight = getattr(self.criterion, "weight", None)
            mass = torch.tensor(float(len(target)), device=self.device) if weight is None else weight[target].sum()
            self._mass = self._mass + mass
            loss = loss * mass
        self.scaler.scale(loss).backward()

    def _step(self, measure: bool) -> Tensor | None:
        """One optimizer step; returns the gradient norm where it was computed."""
        norm = None
        if self.several:
            # Processes have averaged their gradients; they are to be added up.
            mass = sum_of_all(self._mass) / world_size()
            mass = torch.where(mass > 0, mass, 1.0)
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(mass)
            self._mass = torch.zeros((), device=self.device)
        if self.grad_clip or measure:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip or float("inf"))
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        # A step that the scaler left out, because a gradient overflowed, is none for the schedule either.
        if scale is None or self.scaler.get_scale() >= scale:
            self.schedule.after_batch()
        self.global_step += 1
        return norm

    def _log_step(self, bar: tqdm, loss: Tensor, grad_norm: Tensor | None, speed: float) -> None:
        bar.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
        if self.writer:
            values = {"learning_rate": self.optimizer.param_groups[0]["lr"], "samples_per_second": speed}
            if grad_norm is not None:
                values["grad_norm"] = float(grad_norm)
            self.writer.scalars("batch", values, self.global_step)

    def _valid_epoch(self, epoch: int) -> dict[str, float]:
        """Loss and metrics of the whole validation split; empty without one."""
        if self.valid_data_loader is None:
            return {}
        found = predict(
            self.model,
            self.frontend,
            self.valid_data_loader,
            self.device,
            self.precision,
            f"epoch {epoch} valid",
        )
        figures = self._figures(found.output, found.target)
        self._write("valid", figures, epoch)
        if self.writer:
            self.writer.confusion(confusion_matrix(found.output, found.target, len(self.classes)), self.classes, epoch)
        return figures

    def _figures(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Loss and metrics of all items of a split at once; a mean over batches would be another number."""
        with torch.inference_mode():
            loss = float(self.criterion(output.to(self.device), target.to(self.device)))
        return {"loss": loss} | {name: metric(output, target) for name, metric in self.metric_ftns.items()}

    def _write(self, part: str, figures: Mapping[str, float], epoch: int) -> None:
        if self.writer:
            self.writer.scalars(part, figures, epoch)

    def finish(self, best: Mapping[str, float]) -> None:
        """Log the final figures beside the hyperparameters and close the log."""
        if self.writer:
            self.writer.hparams(self.config.to_dict(), {k: v for k, v in best.items() if k != "samples_per_second"})
            self.writer.close()
        if self.mnt_metric and best:
            logger.info(
                "best: epoch %d, %s %.4f", best["epoch"], self.mnt_metric, best.get(self.mnt_metric, float("nan"))
            )
        if path := self.to_test():
            logger.info("test it: python test.py -r %s", path)
        if self.writer and self.writer.enabled:
            logger.info("look at it: tensorboard --logdir %s", self.config.save_root / "log")

    def _extra_state(self) -> dict[str, Any]:
        return {
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "global_step": self.global_step,
            "classes": list(self.classes),
            "data": self.data,
            "input": self.frontend.spec.to_dict(),
        }

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        if tuple(state["classes"]) != self.classes:
            raise UserError(
                str(self.config.resume), f"knows the classes {', '.join(state['classes'])}", "the task has others"
            )
        try:
            then = InputSpec.from_dict(state["input"])
        except UserError as error:
            raise UserError(self.config.resume, f"does not fit this program: {error}") from error
        refuse_other_input(self.config.resume, then, self.frontend.spec)
        if state.get("data") not in (None, self.data):
            logger.warning("the data differs from that of %s: the split may be another", self.config.resume)
        self.schedule.load_state_dict(state["schedule"])
        if self.scaler.is_enabled() and state.get("scaler"):
            if problem := misfit(state["scaler"], self.scaler.state_dict(), "scaler"):
                raise UserError(self.config.resume, f"does not fit this run: {problem}")
            self.scaler.load_state_dict(state["scaler"])
        self.global_step = state["global_step"]
