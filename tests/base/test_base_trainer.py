from __future__ import annotations

import json
import logging
import math
import os
import signal

import pytest
import torch

import base.run_files
from base.base_trainer import epoch_seed
from tests.base.scripted import Scripted, epoch_of, files
from tests.tiny import tiny_config
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.errors import UserError


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
