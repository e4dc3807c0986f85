"""train.py killed at any moment: `-r auto` goes on to what an undisturbed run leaves, to the bit."""

from __future__ import annotations

import os
import random
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, cycle, repeat
from pathlib import Path

import pytest

import base.base_trainer
from tests.killed import Fork
from tests.tiny import tiny_run
from tests.whole_run import begin, child, differences, folder_for, outcome, steps_saved
from trainer.trainer import Trainer

# Of each case and of each of its two lines, which run at the same time.
KILLS = 5
CASES = {
    "one cycle": {"lr_scheduler": {"type": "OneCycleLR", "args": {}}, "trainer__keep_last": 1},
    "saved by period, early stop": {
        "lr_scheduler": {"type": "ReduceLROnPlateau", "args": {"patience": 0, "factor": 0.5}},
        "trainer__epochs": 5,
        "trainer__early_stop": 2,
        "trainer__monitor": "max val_accuracy",
        "trainer__save_every_steps": 3,
        "trainer__save_period": 3,
    },
    "other workers": {
        "data_loader__args__num_workers": 2,
        "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}},
    },
    "drawn by weights, accumulated": {
        "data_loader__args__balance": "weights",
        "data_loader__args__batch_size": 4,
        "lr_scheduler": {"type": "CyclicLR", "args": {"base_lr": 1e-3, "max_lr": 1e-2, "step_size_up": 4}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}},
        "trainer__accumulate": 2,
    },
    "TensorBoard, no monitor": {"trainer__monitor": "off", "trainer__tensorboard": True},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_again_and_again_ends_as_an_undisturbed_one(tiny_data, tmp_path, case):
    start = partial(folder_for, data_dir=tiny_data, **CASES[case])
    undisturbed = start(tmp_path / "undisturbed")
    fork = begin(undisturbed)
    assert not fork.was_killed()
    moments, expected = fork.told(), outcome(undisturbed)
    assert any(name.startswith("checkpoint-") for name in expected["files"])

    def line(number: int) -> None:
        rng = random.Random(f"{case} {number}")
        killed, folder = 0, start(tmp_path / f"{number}")
        for attempt, kind in enumerate(cycle(moments)):
            at = rng.randint(1, moments[kind]) if killed < KILLS else None
            # Each process has another number of workers.
            workers = ("--set", f"data_loader.args.num_workers={(2, 0, 1)[attempt % 3]}")
            change = workers if case == "other workers" else ()
            if begin(folder, change, kind, at).was_killed():
                killed += 1
                # At any moment, what is there is whole, and what was saved once is not lost.
                last = folder / "steps.txt"
                assert steps_saved(folder) >= int((last.exists() and last.read_text()) or 0)
                continue
            assert not differences(outcome(folder), expected), folder
            if at is None:
                break
            folder = start(tmp_path / f"{number} {attempt}")
        # Once more, and there is nothing left to do.
        assert not begin(folder).was_killed()
        assert not differences(outcome(folder), expected), folder

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(line, range(2)))


def twice(folder: Path, first: signal.Signals, second: signal.Signals, saving: bool, tell) -> None:
    """Run train.py in this process, which gets two signals in its third step, or the second while the first one saves.

    The second one comes in the midst of a call that never ends and in which Python looks for no signals.
    """
    pid, steps, step = os.getpid(), count(1), Trainer._step

    def long_call(*_: object) -> None:
        if os.fork() == 0:
            os.kill(pid, second)
            os._exit(0)
        deque(repeat(None), maxlen=0)

    def interrupted(self: Trainer, *args: object) -> object:
        if next(steps) == 3:
            os.kill(pid, first)
            if saving:
                os.fsync = long_call
            else:
                long_call()
        return step(self, *args)

    Trainer._step = interrupted
    child(folder, (), "call", None, tell)


@pytest.mark.parametrize(
    ("first", "second", "saving"),
    [
        (signal.SIGINT, signal.SIGINT, False),
        (signal.SIGTERM, signal.SIGINT, True),
        (signal.SIGINT, signal.SIGTERM, True),
    ],
)
def test_a_second_signal_ends_the_process_at_once_and_loses_no_saved_step(tiny_data, tmp_path, first, second, saving):
    undisturbed, stopped = (folder_for(tmp_path / name, tiny_data) for name in ("undisturbed", "stopped"))
    assert Fork(twice, stopped, first, second, saving, output=tmp_path / "output.txt").end() == -second
    (place,) = stopped.glob("saved/models/tiny/*/checkpoint-*.pth")
    assert place.name == "checkpoint-epoch1-step2.pth"
    for folder in (undisturbed, stopped):
        assert not begin(folder).was_killed()
    assert not differences(outcome(stopped), outcome(undisturbed))


def stopped_in_validation(folder: Path, tell) -> None:
    """Run train.py in this process, which gets SIGTERM when its first validation begins."""
    validate = Trainer._valid_epoch

    def interrupted(self: Trainer, *args: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, *args)

    Trainer._valid_epoch = interrupted
    child(folder, (), "call", None, tell)


def test_a_run_stopped_in_its_first_epoch_shows_each_figure_once(tiny_data, tmp_path):
    undisturbed, stopped = (
        folder_for(tmp_path / name, tiny_data, trainer__tensorboard=True) for name in ("undisturbed", "stopped")
    )
    fork = Fork(stopped_in_validation, stopped, output=tmp_path / "output.txt")
    assert fork.end() == 128 + signal.SIGTERM
    for folder in (undisturbed, stopped):
        assert not begin(folder).was_killed()
    assert not differences(outcome(stopped), outcome(undisturbed))


def test_what_is_logged_is_written_before_the_checkpoint_that_comes_after_it(tiny_data, tmp_path, monkeypatch):
    trainer = tiny_run(tiny_data, tmp_path, trainer__tensorboard=True, trainer__save_every_steps=1)
    seen, save = [], base.base_trainer.save_checkpoint
    for name in ("scalars", "flush"):
        call = getattr(trainer.writer, name)
        monkeypatch.setattr(trainer.writer, name, lambda *args, n=name, c=call: (seen.append(n), c(*args)))
    monkeypatch.setattr(base.base_trainer, "save_checkpoint", lambda *args: (seen.append("save"), save(*args)))
    trainer.finish(trainer.train())
    # Between two saves, nothing is logged after the last flush.
    parts = " ".join(seen).split("save")[:-1]
    assert len(parts) > 4
    assert all("scalars" not in part.rpartition("flush")[2] for part in parts)
