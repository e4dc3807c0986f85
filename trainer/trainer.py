"""The Trainer: one epoch of training, one validation, and what they log."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from base.base_data_loader import BaseDataLoader
from base.base_model import Detailed
from base.base_trainer import BaseTrainer, epoch_seed
from base.saved_state import misfit
from data_loader.batching import Batch
from data_loader.splice import Splice
from logger.log import get_logger
from logger.progress import progress_bar
from logger.tensorboard import TensorboardWriter
from model.metric import confusion_matrix
from trainer.distillation import Distillation, refuse_other_teacher
from trainer.ema import WeightAverage
from trainer.fitting import fit_at_once
from trainer.inference import model_inputs, predict
from trainer.mixup import Mixup
from trainer.nonfinite import NonFiniteGuard, Step
from trainer.objective import batch_loss, batch_mass
from trainer.optimization import Schedule
from trainer.place import Journal, Place, Seen
from trainer.priors import training_priors
from trainer.resuming import load_weights_state, refuse_other_split, refuse_other_task, weights_state
from trainer.stepper import Stepper
from utils.arguments import matches
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.device import autocast, choose_precision, plain_module
from utils.distributed import largest_of_all, rank, same_buffers
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
        distillation: what is learnt from beside the labels, or None.
        classes: class names.
        data: a fingerprint of each split of the data's tables, kept in checkpoints.
        origin: what this process trains with (command, commit, versions), kept in checkpoints.
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
        distillation: Distillation | None = None,
        classes: tuple[str, ...] = (),
        data: Mapping[str, str] | None = None,
        origin: Mapping[str, Any] | None = None,
        writer: TensorboardWriter | None = None,
    ) -> None:
        super().__init__(model, criterion, metric_ftns, optimizer, config, device)
        self.data_loader = data_loader
        # DataLoader draws a seed when it starts its workers; not from the generator that dropout draws from.
        self.data_loader.generator = torch.Generator()
        self.valid_data_loader = valid_data_loader
        self.distillation = distillation
        self.frontend = frontend
        level, filtered = (config.get(f"data_loader.args.{key}") for key in ("level", "filtered"))
        self.splice = Splice(frontend.augmentation.splice, level or 1, bool(filtered))
        self.mixup = Mixup(frontend.augmentation.mixup, frontend.augmentation.mixup_alpha)
        self.schedule = schedule
        self.classes = classes
        self.data = dict(data or {})
        # Of all processes that trained the model, one after the other.
        self.origins = [dict(origin or {})]
        self.precision = choose_precision(config.get("trainer.precision", "fp32"), device)
        self.accumulate: int = config.get("trainer.accumulate", 1)
        ema: float | None = config.get("trainer.ema")
        self.average = WeightAverage(plain_module(model), ema) if ema else None
        grad_clip: float | None = config.get("trainer.grad_clip")
        self.stepper = Stepper(
            model, optimizer, schedule, self.average, device, self.precision, grad_clip, self.accumulate
        )
        self.writer = writer
        # Model input (1, ...) of the item whose way through the layers is drawn; None draws nothing.
        self.shown: Tensor | None = None
        self.nonfinite = NonFiniteGuard(
            config.get("trainer.on_nonfinite", "stop") == "skip", model, device, data_loader.dataset, config.save_dir
        )
        self.global_step = 0
        self._place = Place.start(len(classes))
        if config.resume:
            self._resume_checkpoint(config.resume)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        plain_module(self.model).on_epoch(epoch)
        self.model.train()
        self.frontend.train()
        # A resumed run may begin in the midst of its first epoch.
        start, self._place = self._place, Place.start(len(self.classes))
        train = self._fit if plain_module(self.model).fits_at_once else self._train_batches
        place, speed = train(epoch, start)
        figures = self._figures(place.output, place.target)
        self._write("train", figures, epoch)
        same_buffers(self.scored)
        valid_figures = self._valid_epoch(epoch, lambda: self._stop_in_validation(epoch, place))
        figures |= {f"val_{name}": value for name, value in valid_figures.items()}
        self.schedule.after_epoch(figures)
        return figures | {"samples_per_second": speed}

    def _fit(self, epoch: int, start: Place) -> tuple[Place, float]:
        """In place of `_train_batches`, for a model that is fitted on all training items at once."""
        if start.items:
            # It was fitted, and the run stopped before the validation.
            return start, 0.0
        started = time.perf_counter()
        self.data_loader.set_epoch(epoch)
        torch.manual_seed(epoch_seed(self.config.seed, epoch, rank(), 0))
        parts = plain_module(self.model), self.frontend, self.data_loader, self.device
        found = fit_at_once(*parts, f"epoch {epoch}", self._stop_if_asked)
        self.global_step += 1
        n_items = len(found.target)
        return Place(n_items, found.output, found.target), n_items / (time.perf_counter() - started)

    def _train_batches(self, epoch: int, start: Place) -> tuple[Place, float]:
        """The batches of an epoch that come after a place; the place at the end, and samples a second."""
        loader = self.data_loader
        loader.set_epoch(epoch, start.items)
        todo = loader.batches_left(start.items)
        journal, batches = Journal(start), []
        seen = seen_at_look = 0
        items = start.items
        started = looked = time.perf_counter()
        with progress_bar(loader, desc=f"epoch {epoch}", total=todo, leave=False, disable=rank() != 0) as bar:
            for number, batch in enumerate(bar, start=1):
                if not batches:
                    self.nonfinite.begin()
                batches.append(self._train_batch(epoch, items, batch))
                items = loader.items_after(number, start.items)
                seen += len(batch.target)
                if number % self.accumulate and number != todo:
                    continue
                norm = self._step(epoch, number, batches)
                if norm is not None:
                    journal.add(batches)
                if time.perf_counter() - looked > LOG_SECONDS or number == todo:
                    self.nonfinite.look()
                    speed = (seen - seen_at_look) / (time.perf_counter() - looked)
                    self._log_step(bar, batches[-1].loss, norm, speed)
                    looked, seen_at_look = time.perf_counter(), seen
                batches = []
                self._save_or_stop(epoch, journal, items)
        seconds = time.perf_counter() - started
        place = journal.place(items)
        self.nonfinite.end_epoch(epoch, len(place.target))
        return place, seen / seconds

    def _train_batch(self, epoch: int, items: int, batch: Batch) -> Seen:
        """Forward and backward.

        Args:
            items: how many items of the epoch were drawn before these.
        """
        # Dropout and augmentation depend on seed, epoch and place, as the order of items does: a resumed run needs no
        # state of a generator to go on with the same numbers.
        torch.manual_seed(epoch_seed(self.config.seed, epoch, rank(), items))
        batch = self.splice(self.frontend.augmentation.moved(batch))
        target = batch.target.to(self.device, non_blocking=True)
        details = None if batch.details is None else batch.details.to(self.device, non_blocking=True)
        teacher = self.distillation
        soft = teacher.targets(batch.index).to(self.device, non_blocking=True) if teacher else None
        mix = self.mixup.draw(len(target), self.device)
        try:
            with autocast(self.precision, self.device):
                inputs = model_inputs(self.model, self.frontend, batch, self.device)
                output = self.model(*(mix.inputs(*inputs) if mix else inputs))
        except ValueError as error:
            if len(target) > 1 or "more than 1 value per channel" not in str(error):
                raise
            what = "leaves one item alone in a batch, and this network's batch normalisation takes two"
            raise UserError("data_loader.args.batch_size", what, "take another one") from error
        loss = batch_loss(self.criterion, output, target, details, mix, teacher, soft)
        mass = batch_mass(self.criterion, target, details) if self.stepper.several else None
        self.stepper.backward(loss, mass)
        logits = output.logits if isinstance(output, Detailed) else output
        return Seen(logits.detach().float(), mix.larger(target) if mix else target, batch.index, loss.detach())

    def _step(self, epoch: int, number: int, batches: list[Seen]) -> Tensor | None:
        """One optimizer step; returns the gradient norm, or None where the step was left out.

        Args:
            number: of the last batch in the epoch.
            batches: of the step.
        """
        norm = self.stepper.gradient_norm()
        if self.nonfinite.leaves_out(self._checked(epoch, number, batches, norm)):
            self.stepper.leave_out()
            return None
        self.stepper.step()
        self.global_step += 1
        return norm

    def _checked(self, epoch: int, number: int, batches: list[Seen], norm: Tensor) -> Step:
        """The step that is about to be made, for the guard."""
        loss = torch.stack([batch.loss for batch in batches]).isfinite().all()
        # Of a gradient in fp16 the scaler takes care.
        gradient = torch.ones_like(loss) if self.stepper.scaler.is_enabled() else norm.isfinite()
        items = torch.cat([batch.index for batch in batches])
        return Step(loss, gradient, epoch, number, items, self.optimizer.param_groups[0]["lr"])

    def _save_or_stop(self, epoch: int, journal: Journal, items: int) -> None:
        """After a step: save where the epoch is if that is due, or if a signal came, which then ends the run."""
        due = rank() == 0 and self.save_clock.step()
        # All processes save and stop after the same step.
        due, signum = largest_of_all([due, self._signal or 0])
        if due or signum:
            self.nonfinite.look()
            self._keep_place(epoch, journal.place(items))
        if signum:
            self._signal = signum
            raise Stopped(signum)

    def _stop_in_validation(self, epoch: int, place: Place) -> None:
        """A signal ends the run, with the trained epoch saved."""
        if self._signal is not None:
            self._keep_place(epoch, place)
            raise Stopped(self._signal)

    def _keep_place(self, epoch: int, place: Place) -> None:
        drawn = self.data_loader.drawn_digest(place.items)
        self._save_place(epoch, self.global_step, {**place.to_dict(), "drawn": drawn})

    def _log_step(self, bar: tqdm, loss: Tensor, grad_norm: Tensor | None, speed: float) -> None:
        bar.set_postfix_str(f"loss {loss.item():.4f}", refresh=False)
        if self.writer:
            values = {"learning_rate": self.optimizer.param_groups[0]["lr"], "samples_per_second": speed}
            if grad_norm is not None:
                values["grad_norm"] = float(grad_norm)
            self.writer.scalars("batch", values, self.global_step)

    def _valid_epoch(self, epoch: int, between: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Loss and metrics of the whole validation split; empty without one.

        Args:
            between: called before each batch.
        """
        if self.valid_data_loader is None:
            return {}
        found = predict(
            self.scored,
            self.frontend,
            self.valid_data_loader,
            self.device,
            self.precision,
            f"epoch {epoch} valid",
            between,
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
            figures = {k: v for k, v in best.items() if k != "samples_per_second"}
            self.writer.hparams(self.trained_as, figures, self.global_step + 1)
            if self.shown is not None:
                self.writer.layers(self.scored, self.shown, self.global_step + 1)
            self.writer.close()
        if self.mnt_metric and best:
            value = best.get(self.mnt_metric, float("nan"))
            logger.info("best: epoch %d, %s %.4f", best["epoch"], self.mnt_metric, value)
        if path := self.to_test():
            logger.info("test it: python test.py -r %s", shlex.quote(str(path)))
        if self.writer and self.writer.enabled:
            logger.info("look at it: tensorboard --logdir %s", self.config.save_root / "log")

    @property
    def scored(self) -> nn.Module:
        """The model that is validated, saved to be tested and shown: with the averaged weights, if there are any."""
        return self.average.model if self.average else plain_module(self.model)

    def _weights(self) -> dict[str, Any]:
        return weights_state(plain_module(self.model), self.average)

    def _load_weights(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        load_weights_state(checkpoint, path, plain_module(self.model), self.average)

    def _extra_state(self) -> dict[str, Any]:
        if self.writer:
            # A run that goes on from here logs nothing of what came before: it has to be in the log.
            self.writer.flush()
        return {
            "schedule": self.schedule.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "global_step": self.global_step,
            "classes": list(self.classes),
            "data": self.data,
            "split": self.data_loader.split_digest(),
            "origins": self.origins,
            "input": self.frontend.spec.to_dict(),
            "priors": training_priors(self.data_loader, self.criterion, plain_module(self.model)),
            **({"soft_targets": self.distillation.digest} if self.distillation else {}),
        }

    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        refuse_other_task(state, self.config.resume, self.classes, self.frontend.spec)
        refuse_other_split(state, self.config.resume, self.data_loader, self.data)
        refuse_other_teacher(state, self.config.resume, self.distillation)
        if matches(earlier := state.get("origins"), list[dict[str, Any]]):
            self.origins = [*earlier, *self.origins]
        if state.get("place") is not None:
            try:
                self._place = Place.from_dict(state["place"], self.data_loader.items_per_epoch, len(self.classes))
            except ValueError as error:
                raise UserError(self.config.resume, f"does not fit this run: {error}", "start a new run") from error
            self.data_loader.set_epoch(self.start_epoch)
            if state["place"].get("drawn") not in (None, self.data_loader.drawn_digest(self._place.items)):
                what = "its items come in another order than before: some twice, others not"
                hint = "keep seed, balance, batch size and the number of processes, or go on from a whole epoch"
                logger.warning("epoch %d: %s (%s)", self.start_epoch, what, hint)
        monitor_then = str(state["config"]["trainer"].get("monitor", "off"))
        self.schedule.load_state_dict(state["schedule"], state["global_step"], monitor_then)
        if self.stepper.scaler.is_enabled() and state.get("scaler"):
            if problem := misfit(state["scaler"], self.stepper.scaler.state_dict(), "scaler"):
                raise UserError(self.config.resume, f"does not fit this run: {problem}")
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.global_step = state["global_step"]
