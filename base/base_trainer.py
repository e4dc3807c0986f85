"""The base class of trainers: epochs, the best one, early stopping, checkpoints, resuming."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from base.going_on import BEST, Past, go_on_in, has_best
from base.run_files import checkpoints_of, places_of, publish, write_text
from base.save_clock import SaveClock
from base.saved_state import misfit, optimizer_misfit
from logger.log import get_logger
from utils.arguments import matches
from utils.checkpoint import load_checkpoint, load_weights, pack_checkpoint, save_checkpoint
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.device import plain_module
from utils.distributed import first_process_does, rank
from utils.errors import UserError

logger = get_logger(__name__)

# Parts of a checkpoint that may differ from the run's own in kind, and whose readers say so better.
_LOOKED_AT_ELSEWHERE = {"config", "input", "classes", "data", "split", "origins", "scaler"}
# Minutes of training that a killed run loses at most, unless the config says otherwise.
_SAVE_MINUTES = 30


class BaseTrainer(ABC):
    """Runs epochs. A subclass says what one epoch is (`_train_epoch`) and what else a checkpoint keeps.

    Args:
        model: to train.
        criterion: loss of ``(output, target)``.
        metric_ftns: metrics by name, functions of ``(output, target)`` over a whole split.
        optimizer: of the model's parameters.
        config: of the run; its folders are made.
        device: that the model is on.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        metric_ftns: Mapping[str, Callable[[Tensor, Tensor], float]],
        optimizer: torch.optim.Optimizer,
        config: ConfigParser,
        device: torch.device,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.metric_ftns = metric_ftns
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.epochs: int = config["trainer"]["epochs"]
        self.start_epoch = 1
        self.save_period: int = config.get("trainer.save_period", 1)
        self.keep_last: int | None = config.get("trainer.keep_last", 2)
        self.save_clock = SaveClock(
            config.get("trainer.save_every_minutes", _SAVE_MINUTES), config.get("trainer.save_every_steps")
        )
        self.early_stop: float = config.get("trainer.early_stop") or math.inf
        monitor = config.get("trainer.monitor", "off")
        self.mnt_mode, self.mnt_metric = ("off", None) if monitor == "off" else monitor.split()
        self._forget_best()
        self.history: list[dict[str, float]] = []
        # With which it is trained; where nothing is left to train, with which it was.
        self.trained_as = config.to_dict()
        # Where a resumed run goes on: after this epoch and step.
        self.resumed_at: tuple[float, float] = (0, math.inf)
        self._signal: int | None = None
        self._pid = os.getpid()
        self._saved: Path | None = config.resume
        # Whether the best checkpoint in the folder is that of the history.
        self._has_best = True
        # The last whole epoch and its checkpoint, packed, where `save_period` has not put it on the disk.
        self._unsaved: tuple[int, bytes] | None = None

    @abstractmethod
    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch and validate; returns the epoch's figures by name."""

    @abstractmethod
    def _extra_state(self) -> dict[str, Any]:
        """What else a checkpoint has to keep: tensors and plain values."""

    @abstractmethod
    def _load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `_extra_state` gave; and the ``place``, if the checkpoint has one, see `_save_place`."""

    def train(self) -> dict[str, float]:
        """Run all epochs that are left.

        SIGINT and SIGTERM stop it at the next chance that `_train_epoch` gives; a second signal ends the process at
        once. Whatever ends the run early, the last whole epoch is saved first, if nothing newer is.

        Returns:
            The figures of the best epoch, or of the last one where nothing is monitored.

        Raises:
            Stopped: a signal came.
            UserError: the GPU's memory is too small, a file cannot be written.
        """
        if self.start_epoch > self.epochs:
            logger.warning("all %d epochs are done: nothing is left to train", self.epochs)
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.config.resume:
                self._go_on(self.config.resume)
            if rank() == 0:
                # A run that was killed just after it wrote a checkpoint has not come to this.
                self._follow_up(self.start_epoch - 1)
            for epoch in range(self.start_epoch, self.epochs + 1):
                if self.not_improved_count >= self.early_stop:
                    logger.info("no improvement for %d epochs: stopped", self.not_improved_count)
                    break
                self._one_epoch(epoch)
        except BaseException as error:
            self._save_unsaved()
            if self._signal is not None:
                # With several processes, one that the signal ended may be an error in another.
                self._say_how_to_go_on()
                raise Stopped(self._signal) from error
            if isinstance(error, UserError) and self._saved:
                logger.info("the last checkpoint is whole: %s", self._saved)
            if isinstance(error, torch.OutOfMemoryError):
                hint = "take a smaller one (--bs), and set trainer.accumulate to make up for it"
                raise UserError("data_loader.args.batch_size", "is too large for the GPU's memory", hint) from error
            raise
        finally:
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        return self._best_figures()

    @property
    def is_left(self) -> bool:
        """Whether anything is left to train."""
        return self.start_epoch <= self.epochs and self.not_improved_count < self.early_stop

    def _go_on(self, path: Path) -> None:
        """Make the folder that of the training that goes on from a checkpoint. If none is left, it stays as it is."""
        config, is_left = self.config, self.is_left
        past = Past(path, self.resumed_at, self.history, self._best_epoch(), config.to_dict())

        def prepare() -> bool:
            if not is_left and path.parent == config.save_dir:
                return has_best(config.save_dir, past)
            found = go_on_in(config.save_dir, past)
            if (best := config.save_dir / BEST).is_file():
                publish(best, config.save_root)
            config.note_config(self.trained_as)
            return found

        self._has_best = first_process_does(prepare)
        if is_left and not self._has_best:
            logger.warning("the best checkpoint so far, of epoch %d, is not there: it is forgotten", past.best)
            self._forget_best()
            self._has_best = True

    def _one_epoch(self, epoch: int) -> None:
        figures = {"epoch": epoch, **self._train_epoch(epoch)}
        if diverged := [name for name in ("loss", "val_loss") if not math.isfinite(figures.get(name, 0))]:
            logger.warning("%s is not finite: the training diverges; a lower learning rate helps", diverged[0])
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.history.append(figures)
        for name, value in figures.items():
            logger.info("    %-24s: %s", name, f"{value:.6g}")
        best = self._improved(figures)
        self._write_history()
        # The best is saved whenever it is the best; the rest keeps its period, and the end is always kept.
        if best:
            self._save_checkpoint(epoch, save_best=True)
        stops = epoch == self.epochs or self.not_improved_count >= self.early_stop
        if epoch % self.save_period == 0 or stops:
            self._save_checkpoint(epoch)
        elif rank() == 0:
            self._unsaved = epoch, pack_checkpoint(self._state(epoch))

    def _improved(self, figures: Mapping[str, float]) -> bool:
        """Whether the monitored figure is the best so far; counts the epochs since it was."""
        if self.mnt_metric is None:
            return False
        value = figures.get(self.mnt_metric)
        if value is None:
            logger.warning("%s is undefined in this epoch; it counts as no improvement", self.mnt_metric)
        elif (value < self.mnt_best) if self.mnt_mode == "min" else (value > self.mnt_best):
            self.mnt_best = value
            self.not_improved_count = 0
            return True
        self.not_improved_count += 1
        return False

    def _best_epoch(self) -> int | None:
        """The number of the best epoch so far; None where nothing is monitored or none was better than nothing."""
        number = len(self.history) - self.not_improved_count
        if self.mnt_metric is None or not isinstance(number, int) or not 0 < number <= len(self.history):
            return None
        return number if self.history[number - 1].get(self.mnt_metric) == self.mnt_best else None

    def _forget_best(self) -> None:
        self.mnt_best = math.inf if self.mnt_mode == "min" else -math.inf
        self.not_improved_count = 0

    def _best_figures(self) -> dict[str, float]:
        return self.history[(self._best_epoch() or 0) - 1] if self.history else {}

    def _on_signal(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            # A worker process of a loader, which inherits this: Ctrl-C is for the trainer, and SIGTERM ends it.
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        self._signal = signum
        # Left to the system, the next one ends the process even in the midst of a long call, where Python would wait.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        # Not by the logger: the signal may have come in the midst of its writing.
        os.write(2, f"\n{signal.Signals(signum).name}: stopping; once more stops at once\n".encode())

    def _stop_if_asked(self) -> None:
        """To be called between steps: ends the run on a signal, with the last whole epoch saved."""
        if self._signal is not None:
            raise Stopped(self._signal)

    def _say_how_to_go_on(self) -> None:
        if self._saved:
            logger.info("stopped; go on with: python train.py -r %s", shlex.quote(str(self._saved)))
        else:
            logger.info("stopped before anything was trained: there is nothing to go on from")

    # Checkpoints

    def _weights(self) -> dict[str, Any]:
        """The weights in a checkpoint; those under ``state_dict`` are tested."""
        return {"state_dict": plain_module(self.model).state_dict()}

    def _load_weights(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Take back what `_weights` gave.

        Raises:
            UserError: they do not fit the model.
        """
        load_weights(plain_module(self.model), checkpoint["state_dict"], path)

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "arch": type(plain_module(self.model)).__name__,
            "epoch": epoch,
            **self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "monitor": {"best": self.mnt_best, "not_improved_count": self.not_improved_count},
            "history": self.history,
            "config": self.config.to_dict(),
            **self._extra_state(),
        }

    def _save_checkpoint(self, epoch: int, save_best: bool = False) -> None:
        """Write ``checkpoint-epochN.pth``, or ``model_best.pth`` and ``<save_dir>/model_best.pth``, the same."""
        if rank() != 0:
            return
        if save_best:
            path = self.config.save_dir / BEST
            save_checkpoint(path, self._state(epoch))
            publish(path, self.config.save_root)
            logger.info("saved the best so far: %s", path)
        else:
            self._write_checkpoint(epoch, self._state(epoch))

    def _write_checkpoint(self, epoch: int, checkpoint: Mapping[str, Any] | bytes) -> None:
        path = self.config.save_dir / f"checkpoint-epoch{epoch}.pth"
        save_checkpoint(path, checkpoint)
        self._note_saved(path)
        self._follow_up(epoch)

    def _follow_up(self, epoch: int) -> None:
        """What comes after a checkpoint: remove what it replaces, and publish it where nothing is monitored."""
        folder = self.config.save_dir
        for place in places_of(folder, before=(epoch, math.inf)):
            place.unlink()
        if self.keep_last:
            # Where nothing is left to train after an earlier epoch, later ones stay.
            earlier = [old for number, old in checkpoints_of(folder) if number <= epoch]
            for old in earlier[: -self.keep_last]:
                old.unlink()
        path = folder / f"checkpoint-epoch{epoch}.pth"
        if self.mnt_metric is None and path.is_file():
            # With nothing to compare, the newest is the one to test.
            publish(path, self.config.save_root)

    def _save_place(self, epoch: int, step: int, place: Mapping[str, Any]) -> None:
        """Write ``checkpoint-epochN-stepM.pth`` in the middle of epoch N, after M steps of the run.

        The newest of these stays, until its epoch is saved whole.

        Args:
            place: what else is needed to go on from there: tensors and plain values.
        """
        if rank() == 0:
            path = self.config.save_dir / f"checkpoint-epoch{epoch}-step{step}.pth"
            save_checkpoint(path, {**self._state(epoch - 1), "place": place})
            for earlier in places_of(self.config.save_dir, before=(epoch, step)):
                earlier.unlink()
            self._note_saved(path)

    def _note_saved(self, path: Path) -> None:
        logger.debug("saved %s", path)
        self._saved, self._unsaved = path, None
        self.save_clock.restart()

    def _save_unsaved(self) -> None:
        if self._unsaved:
            self._write_checkpoint(*self._unsaved)

    def to_test(self) -> Path | None:
        """The checkpoint to test: the best one, or the newest; None where the run has saved none."""
        best = self.config.save_dir / BEST
        return best if self._has_best and best.is_file() else self._saved

    def _resume_checkpoint(self, path: Path) -> None:
        """Take everything from a checkpoint and go on after its epoch, or from its place in the next one.

        Raises:
            UserError: the checkpoint cannot be read or does not fit this config.
        """
        checkpoint = load_checkpoint(path)
        self._load_weights(checkpoint, path)
        saved = checkpoint["config"]
        for key in ("optimizer", "lr_scheduler"):
            if saved.get(key) != self.config.get(key):
                what = f"differs from that of {path}, which is {json.dumps(saved.get(key))}"
                raise UserError(key, what, "a resumed run keeps it; start a new run to change it")
        own = {key: value for key, value in self._state(0).items() if key not in _LOOKED_AT_ELSEWHERE}
        if problem := (
            misfit(checkpoint, own)
            or optimizer_misfit(checkpoint["optimizer"], self.optimizer)
            or (None if matches(checkpoint["history"], list[dict[str, float]]) else "history is no list of figures")
        ):
            raise UserError(path, f"does not fit this run: {problem}", "start a new run")
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.start_epoch = checkpoint["epoch"] + 1
        self.history = checkpoint["history"]
        self.resumed_at = (checkpoint["epoch"], math.inf)
        if checkpoint.get("place") is not None:
            self.resumed_at = (self.start_epoch, checkpoint.get("global_step", 0))
        if saved["trainer"].get("monitor", "off") == self.config.get("trainer.monitor", "off"):
            self.mnt_best = checkpoint["monitor"]["best"]
            self.not_improved_count = checkpoint["monitor"]["not_improved_count"]
        else:
            logger.warning("the monitor changed: the best so far is forgotten")
        self.trained_as = self.config.to_dict() if self.is_left else saved
        self._load_extra_state(checkpoint)
        logger.info("resumed from %s; next is epoch %d", path, self.start_epoch)

    def _write_history(self) -> None:
        if rank() == 0:
            lines = "".join(json.dumps(figures) + "\n" for figures in self.history)
            write_text(self.config.save_dir / "metrics.jsonl", lines)


def epoch_seed(*numbers: int) -> int:
    """A seed for ``torch.manual_seed`` that depends on all numbers, in their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
