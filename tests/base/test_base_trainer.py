from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import base.run_files
from base.base_trainer import BaseTrainer, epoch_seed
from base.run_files import announce_run, newest_checkpoint
from tests.tiny import tiny_config
from utils.checkpoint import load_checkpoint
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.errors import UserError


class Scripted(BaseTrainer):
    """An epoch adds 1 to the weight and gives the next value of a list as val_loss; what is callable is called."""

    def __init__(self, config, values):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        super().__init__(model, nn.MSELoss(), {}, optimizer, config, torch.device("cpu"))
        self.values = values
        if config.resume:
            self._resume_checkpoint(config.resume)

    def _train_epoch(self, epoch):
        self._stop_if_asked()
        value = self.values[epoch - 1]
        if callable(value):
            value = value()
            self._stop_if_asked()
        with torch.no_grad():
            self.model.weight += 1
        return {"loss": 1.0, "val_loss": value}

    def _extra_state(self):
        return {"classes": [], "input": {}, "doubled": 2 * self.model.weight.item()}

    def _load_extra_state(self, state):
        self.doubled = state["doubled"]


@pytest.fixture
def make(tmp_path):
    def make(values, resume=None, run_id=None, **changes):
        changes = {"epochs": len(values), **changes}
        config = tiny_config("data", tmp_path / "saved", **{f"trainer__{k}": v for k, v in changes.items()})
        config = ConfigParser(config, run_id=run_id, resume=resume)
        config.make_run_folders()
        announce_run(config)
        return Scripted(config, values)

    return make


def files(trainer):
    return sorted(path.name for path in trainer.config.save_dir.glob("*.pth"))


def epoch_of(path):
    checkpoint = load_checkpoint(path)
    assert checkpoint["state_dict"]["weight"].item() == checkpoint["epoch"]
    return checkpoint["epoch"]


def stopped_after(values, mode, patience):
    """The plain definition: (epochs run, the best one), patience 0 being for ever."""
    best, best_epoch, waited = None, None, 0
    for epoch, value in enumerate(values, start=1):
        better = not math.isnan(value) and (best is None or (value < best if mode == "min" else value > best))
        if better:
            best, best_epoch, waited = value, epoch, 0
        else:
            waited += 1
        if patience and waited >= patience:
            return epoch, best_epoch
    return len(values), best_epoch


NAN = math.nan


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "values",
    [
        [5, 4, 3, 2, 1, 0],
        [0, 1, 2, 3, 4, 5],
        [3, 3, 3, 3, 3, 3],
        [2, 3, 1, 4, 4, 0.5, 9, 9, 9, 9],
        [NAN, NAN, 1, NAN, 0.5, NAN, NAN, NAN, NAN],
        [1, 2, NAN, 0, 3, 5, 4, 4],
        [math.inf, -math.inf, 2, 1],
    ],
)
def test_early_stopping_and_the_best_follow_their_definition(make, values, mode, patience):
    trainer = make(values, monitor=f"{mode} val_loss", early_stop=patience)
    best = trainer.train()
    values = [value if math.isfinite(value) else NAN for value in values]  # infinity is a divergence, no record
    epochs, best_epoch = stopped_after(values, mode, patience)
    assert [figures["epoch"] for figures in trainer.history] == list(range(1, epochs + 1))
    if best_epoch is None:
        assert "model_best.pth" not in files(trainer)
    else:
        assert epoch_of(trainer.config.save_dir / "model_best.pth") == best_epoch
        assert best["epoch"] == best_epoch
    assert epoch_of(trainer.to_test()) == (best_epoch or epochs)


def test_an_undefined_figure_is_said_and_left_out_of_the_history(make, caplog):
    trainer = make([1.0, NAN])
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "val_loss is undefined" in caplog.text
    assert "val_loss is not finite" in caplog.text
    assert "val_loss" not in trainer.history[1]
    lines = (trainer.config.save_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == trainer.history


def test_the_best_is_saved_whenever_it_is_the_best_and_the_rest_by_period(make):
    trainer = make([9, 8, 9, 1, 9, 9, 9, 9, 9, 9, 9, 9], save_period=5, keep_last=None)
    trainer.train()
    assert files(trainer) == [
        "checkpoint-epoch10.pth",
        "checkpoint-epoch12.pth",
        "checkpoint-epoch5.pth",
        "model_best.pth",
    ]
    assert epoch_of(trainer.config.save_dir / "model_best.pth") == 4


def test_an_early_stop_is_saved_whatever_the_period(make):
    trainer = make([1, 2, 3, 4, 5], save_period=5, early_stop=2)
    trainer.train()
    assert files(trainer) == ["checkpoint-epoch3.pth", "model_best.pth"]


@pytest.mark.parametrize(("keep", "kept"), [(1, {12}), (2, {11, 12}), (3, {10, 11, 12}), (None, set(range(1, 13)))])
def test_the_last_checkpoints_are_kept(make, keep, kept):
    trainer = make([1] * 12, keep_last=keep)
    trainer.train()
    assert {epoch_of(path) for path in trainer.config.save_dir.glob("checkpoint-*.pth")} == kept


def test_without_a_monitor_the_newest_is_the_one_to_test(make):
    trainer = make([3, 1, 2], monitor="off", early_stop=1)
    assert trainer.train()["epoch"] == 3
    assert "model_best.pth" not in files(trainer)
    assert epoch_of(trainer.config.save_root / "model_best.pth") == 3
    assert epoch_of(trainer.to_test()) == 3


def test_model_best_is_that_of_the_newest_run(make):
    old = make([5, 1])
    new = make([3, 2, 4])
    new.train()
    shared = new.config.save_root / "model_best.pth"
    assert epoch_of(shared) == 2
    content = shared.read_bytes()
    old.train()
    assert shared.read_bytes() == content
    # To go on with the old run makes it the newest again, with the best that it has.
    make([5, 1, 7], resume=old.config.save_dir / "checkpoint-epoch2.pth")
    assert shared.read_bytes() == (old.config.save_dir / "model_best.pth").read_bytes()


def test_model_best_needs_no_hard_links(make, monkeypatch):
    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    trainer = make([3, 2, 4])
    trainer.train()
    assert epoch_of(trainer.config.save_root / "model_best.pth") == 2


def test_a_resumed_run_counts_on(make):
    values = [5, 4, 6, 6, 3, 6, 6, 6, 6]
    straight = make(values, early_stop=3)
    straight.train()
    first = make(values[:4], early_stop=3)
    first.train()
    second = make(values, early_stop=3, resume=first.config.save_dir / "checkpoint-epoch4.pth")
    assert second.config.save_dir == first.config.save_dir
    assert second.not_improved_count == 2
    assert second.doubled == 8
    best = second.train()
    assert second.history == straight.history
    assert len(second.history) == 8
    assert best == straight._best_figures()
    assert (first.config.save_dir / "metrics.jsonl").read_bytes() == (
        straight.config.save_dir / "metrics.jsonl"
    ).read_bytes()


def test_a_run_that_is_done_says_so(make, caplog):
    first = make([2, 1])
    first.train()
    second = make([2, 1], resume=first.config.save_dir / "checkpoint-epoch2.pth")
    with caplog.at_level(logging.WARNING):
        assert second.train()["epoch"] == 2
    assert "all 2 epochs are done" in caplog.text


def test_a_new_monitor_forgets_the_old_best(make):
    first = make([1, 2])
    first.train()
    second = make([1, 2, 3], monitor="max val_loss", resume=first.config.save_dir / "checkpoint-epoch2.pth")
    assert second.train()["epoch"] == 3


SIX = [9, 8, 7, 6, 4, 5]


@pytest.fixture
def six(make):
    """The folder of a run of six epochs, the fifth the best."""
    run = make(SIX, keep_last=None)
    run.train()
    return run.config.save_dir


def histories(folder):
    """The monitored figures that the checkpoints of a folder have seen."""
    return {path.name: [f["val_loss"] for f in load_checkpoint(path)["history"]] for path in folder.glob("*.pth")}


def up_to(values, *epochs):
    """`histories` of the checkpoints of these epochs."""
    return {f"checkpoint-epoch{epoch}.pth": values[:epoch] for epoch in epochs}


def test_going_back_to_an_earlier_epoch_puts_what_lies_beyond_aside(make, six, caplog):
    values = [9, 8, 8.5, 8.2]
    run = make(values, resume=six / "checkpoint-epoch2.pth", keep_last=None)
    with caplog.at_level(logging.INFO):
        best = run.train()
    # The best is that of the epochs that led here.
    assert (best["epoch"], run.to_test()) == (2, six / "model_best.pth")
    assert histories(six) == up_to(values, 1, 2, 3, 4) | {"model_best.pth": [9, 8]}
    assert histories(run.config.save_root) == {"model_best.pth": [9, 8]}
    # Nothing of the old ones is lost, and nothing finds them.
    assert histories(six / "abandoned-1") == up_to(SIX, 3, 4, 5, 6) | {"model_best.pth": SIX[:5]}
    assert newest_checkpoint(six.parent) == six / "checkpoint-epoch4.pth"
    assert caplog.text.count("is put aside in") == 1

    make([9, 8, 1], resume=six / "checkpoint-epoch2.pth", keep_last=2).train()
    assert histories(six / "abandoned-2") == up_to(values, 3, 4)
    assert histories(six) == up_to([9, 8, 1], 2, 3) | {"model_best.pth": [9, 8, 1]}


def test_going_back_with_nothing_changed_ends_with_the_same(make, six):
    before = histories(six)
    make(SIX, resume=six / "checkpoint-epoch2.pth", keep_last=None).train()
    assert histories(six) == before


@pytest.mark.parametrize("moves", range(6))
def test_killed_while_it_puts_aside_it_goes_on_to_the_same(make, six, monkeypatch, moves):
    values, left, rename = [9, 8, 8.5, 8.2], iter(range(moves)), Path.rename

    def killed(path, target):
        next(left)
        rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with contextlib.suppress(StopIteration):
            make(values, resume=six / "checkpoint-epoch2.pth", keep_last=None).train()
    make(values, resume=six / "checkpoint-epoch2.pth", keep_last=None).train()
    assert histories(six) == up_to(values, 1, 2, 3, 4) | {"model_best.pth": [9, 8]}
    aside = [histories(folder) for folder in six.glob("abandoned-*")]
    everything = up_to(SIX, 3, 4, 5, 6) | {"model_best.pth": SIX[:5]}
    assert {name: history for found in aside for name, history in found.items() if history == everything[name]} == (
        everything
    )


def test_going_back_where_nothing_is_left_to_train_changes_nothing(make, six):
    before = {path: path.read_bytes() for path in six.rglob("*") if path.is_file()}
    run = make([9, 8], resume=six / "checkpoint-epoch2.pth", keep_last=None)
    assert run.train()["epoch"] == 2
    assert {path: path.read_bytes() for path in six.rglob("*") if path.is_file()} == before
    # The best in the folder is of a later epoch.
    assert run.to_test() == six / "checkpoint-epoch2.pth"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_best_that_is_not_there_any_more_is_forgotten(make, caplog, damaged):
    first = make([7, 8, 9, 6], keep_last=None, early_stop=3)
    first.train()
    folder = first.config.save_dir
    (folder / "checkpoint-epoch1.pth").unlink()
    if damaged:
        (folder / "model_best.pth").write_bytes(b"damaged")
    values = [7, 8, 8, 8, 8, 8, 7]
    run = make(values, resume=folder / "checkpoint-epoch2.pth", keep_last=None, early_stop=3)
    best = run.train()
    # What comes is compared with itself, and an equal figure from before is not taken for it.
    assert [figures["val_loss"] for figures in run.history] == values[:6]
    assert best["epoch"] == 3
    assert histories(folder)["model_best.pth"] == [7, 8, 8]
    assert "of epoch 1, is not there: it is forgotten" in caplog.text


def killed_after_the_best(make, **changes):
    """A run whose second epoch's best checkpoint is written, and not its own."""
    run = make([9, 8, 7], **changes)
    write = run._write_checkpoint
    run._write_checkpoint = lambda epoch, checkpoint: write(epoch, checkpoint) if epoch < 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        run.train()
    assert histories(run.config.save_dir) == up_to([9], 1) | {"model_best.pth": [9, 8]}
    return run.config.save_dir


def test_a_best_that_the_run_comes_to_again_stays_where_it_is(make):
    folder = killed_after_the_best(make)
    make([9, 8, 7], resume=folder / "checkpoint-epoch1.pth").train()
    assert not list(folder.glob("abandoned-*"))


def test_a_best_that_another_training_does_not_come_to_again_is_put_aside(make):
    folder = killed_after_the_best(make)
    make([9, 9.5, 9.2], resume=folder / "checkpoint-epoch1.pth", grad_clip=1.0).train()
    assert histories(folder)["model_best.pth"] == [9]
    assert histories(folder / "abandoned-1") == {"model_best.pth": [9, 8]}


def test_a_best_by_another_monitor_is_put_aside(make, six):
    run = make([*SIX, 9], monitor="off", resume=six / "checkpoint-epoch6.pth")
    run.train()
    assert run.to_test() == six / "checkpoint-epoch7.pth"
    assert histories(run.config.save_root) == {"model_best.pth": [*SIX, 9]}
    assert histories(six / "abandoned-1") == {"model_best.pth": SIX[:5]}


@pytest.mark.parametrize(("epoch", "best"), [(6, 5), (2, 2)])
def test_a_run_that_goes_on_under_another_name_has_the_best_of_what_came_before(make, six, epoch, best):
    before = histories(six)
    run = make([*SIX[:epoch], 99], resume=six / f"checkpoint-epoch{epoch}.pth", run_id="other")
    assert run.train()["epoch"] == best
    assert run.to_test() == six.parent / "other" / "model_best.pth"
    assert histories(run.config.save_dir)["model_best.pth"] == SIX[:best]
    assert histories(run.config.save_root) == {"model_best.pth": SIX[:best]}
    assert histories(six) == before


def test_a_run_that_goes_on_under_another_name_forgets_a_best_that_is_nowhere(make, six):
    for gone in ("model_best.pth", "checkpoint-epoch5.pth"):
        (six / gone).unlink()
    run = make([*SIX, 99], resume=six / "checkpoint-epoch6.pth", run_id="other")
    assert run.train()["epoch"] == 7
    assert histories(run.config.save_root) == {"model_best.pth": [*SIX, 99]}


def test_config_json_says_what_the_run_was_trained_with(make, six):
    def noted():
        return json.loads((six / "config.json").read_text())["trainer"]

    before, changes = noted(), {"resume": six / "checkpoint-epoch6.pth", "keep_last": None, "grad_clip": 3.0}
    done = make(SIX, **changes)
    done.train()
    assert noted() == before == done.trained_as["trainer"]
    make([*SIX, 1], **changes).train()
    assert noted() == before | {"grad_clip": 3.0, "epochs": 7}


@pytest.mark.parametrize("section", ["optimizer", "lr_scheduler"])
def test_settings_that_a_resumed_run_would_not_follow_are_refused(make, tmp_path, section):
    first = make([1])
    first.train()
    config = tiny_config("data", tmp_path / "saved", trainer__epochs=3)
    config[section] = {"type": "SGD", "args": {"lr": 5.0}}
    config = ConfigParser(config, resume=first.config.save_dir / "checkpoint-epoch1.pth")
    config.make_run_folders()
    with pytest.raises(UserError, match=f"{section}: differs from that of"):
        Scripted(config, [1, 1, 1])


def interrupt(signum):
    def value():
        os.kill(os.getpid(), signum)
        return 1.0

    return value


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("period", [1, 5])
def test_a_signal_saves_the_last_whole_epoch(make, caplog, signum, period):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    trainer = make([4, 3, 5, interrupt(signum), 1, 1], save_period=period)
    with caplog.at_level(logging.INFO), pytest.raises(Stopped) as caught:
        trainer.train()
    assert caught.value.signum == signum
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    path = trainer.config.save_dir / "checkpoint-epoch3.pth"
    assert f"train.py -r {path}" in caplog.text
    assert epoch_of(path) == 3

    again = make([4, 3, 5, 6, 1, 2], save_period=period, resume=path)
    again.train()
    assert [figures["val_loss"] for figures in again.history] == [4, 3, 5, 6, 1, 2]


def test_a_signal_in_the_first_epoch_saves_nothing_and_says_so(make, caplog):
    trainer = make([interrupt(signal.SIGINT), 1], save_period=3)
    with caplog.at_level(logging.INFO), pytest.raises(Stopped):
        trainer.train()
    assert files(trainer) == []
    assert "nothing to go on from" in caplog.text


def test_an_error_that_a_signal_brings_about_is_the_signal(make):
    def value():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("Connection closed by peer")

    trainer = make([4, value], save_period=5)
    with pytest.raises(Stopped):
        trainer.train()
    assert epoch_of(trainer.config.save_dir / "checkpoint-epoch1.pth") == 1


def test_a_crash_saves_the_last_whole_epoch(make):
    trainer = make([4, 3, lambda: 1 / 0], save_period=5)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert epoch_of(trainer.config.save_dir / "checkpoint-epoch2.pth") == 2


def test_too_little_gpu_memory_names_the_batch_size(make):
    def value():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    with pytest.raises(UserError, match=r"batch_size: is too large .*--bs"):
        make([value]).train()


def test_a_full_disk_is_one_error_and_leaves_the_last_checkpoint(make, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    def value():
        monkeypatch.setattr(torch, "save", full)
        return 0.0

    trainer = make([2, 1, value], keep_last=1)
    with pytest.raises(UserError, match="No space left"):
        trainer.train()
    assert epoch_of(trainer.config.save_dir / "checkpoint-epoch2.pth") == 2
    assert epoch_of(trainer.config.save_dir / "model_best.pth") == 2
    monkeypatch.setattr(base.run_files, "atomic_write_text", full)
    with pytest.raises(UserError, match="cannot be written"):
        make([1])


def test_seeds_depend_on_every_number():
    seeds = [epoch_seed(*numbers) for numbers in [(0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 2, 0), (2, 0, 0)]]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert epoch_seed(3, 4) == epoch_seed(3, 4)
