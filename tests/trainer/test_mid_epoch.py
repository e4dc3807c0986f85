"""A run that goes on from the midst of an epoch is the run that was never stopped, to the bit."""

from __future__ import annotations

import itertools
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from tests.tiny import run, tiny_config, tiny_run, write_config
from tests.trainer.test_resume import CASES, COMMON, same, without_speed
from utils.checkpoint import load_checkpoint
from utils.cli import Stopped
from utils.errors import UserError


def end_of(trainer):
    """The last checkpoint and the best one."""
    folder = trainer.config.save_dir
    last = max(folder.glob("checkpoint-epoch?.pth"))
    return [load_checkpoint(path) for path in (last, folder / "model_best.pth")]


def same_end(one, other):
    for ours, theirs in zip(end_of(one), end_of(other), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"history", "config", "origins"}:
            assert same(ours[key], theirs[key]), key
        assert without_speed(ours["history"]) == without_speed(theirs["history"])


def stop_after(trainer, steps):
    """Send SIGTERM to this process after so many steps of the optimizer."""
    count = itertools.count(1)

    def hook(*_):
        if next(count) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.optimizer.register_step_post_hook(hook)


@pytest.mark.parametrize("case", CASES)
def test_a_run_stopped_after_any_step_goes_on_to_the_same_end(tiny_data, tmp_path, case):
    changes = COMMON | CASES[case] | {"trainer__epochs": 2, "data_loader__args__batch_size": 6}
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()
    steps = straight.global_step
    for number, stop in enumerate(sorted({1, steps // 4, steps // 2, steps - 1})):
        folder = tmp_path / f"parts{number}"
        first = tiny_run(tiny_data, folder, **changes)
        stop_after(first, stop)
        with pytest.raises(Stopped):
            first.train()
        (place,) = first.config.save_dir.glob("checkpoint-epoch*-step*.pth")
        torch.manual_seed(number)  # what a new process would not know must not matter
        second = tiny_run(tiny_data, folder, resume=place, **changes)
        second.train()
        same_end(straight, second)
        assert not list(second.config.save_dir.glob("*-step*"))


def test_a_run_stopped_in_validation_goes_on_to_the_same_end(tiny_data, tmp_path):
    changes = COMMON | {"data_loader__args__batch_size": 4}
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()
    first = tiny_run(tiny_data, tmp_path / "parts", **changes)

    def hook(module, args):
        if not module.training:
            os.kill(os.getpid(), signal.SIGTERM)

    first.model.register_forward_pre_hook(hook)
    with pytest.raises(Stopped):
        first.train()
    (place,) = first.config.save_dir.glob("checkpoint-epoch1-step*.pth")
    second = tiny_run(tiny_data, tmp_path / "parts", resume=place, **changes)
    second.train()
    same_end(straight, second)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_another_number_of_workers_goes_on_to_the_same_end(tiny_data, tmp_path, workers):
    straight = tiny_run(tiny_data, tmp_path / "straight", **COMMON)
    straight.train()
    first = tiny_run(tiny_data, tmp_path / "parts", data_loader__args__num_workers=2 - workers, **COMMON)
    stop_after(first, 3)
    with pytest.raises(Stopped):
        first.train()
    (place,) = first.config.save_dir.glob("*-step3.pth")
    changes = COMMON | {"data_loader__args__num_workers": workers}
    second = tiny_run(tiny_data, tmp_path / "parts", resume=place, **changes)
    second.train()
    same_end(straight, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("devices", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_on_another_kind_of_device(tiny_data, tmp_path, devices):
    straight = tiny_run(tiny_data, tmp_path / "straight")
    straight.train()
    first = tiny_run(tiny_data, tmp_path / "parts", device=devices[0])
    stop_after(first, 2)
    with pytest.raises(Stopped):
        first.train()
    (place,) = first.config.save_dir.glob("*-step2.pth")
    second = tiny_run(tiny_data, tmp_path / "parts", resume=place, device=devices[1])
    second.train()
    for ours, theirs in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.cpu(), rtol=1e-3, atol=1e-4)


def test_places_are_saved_every_so_many_steps_and_only_the_newest_stays(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, trainer__epochs=1, trainer__save_every_steps=2)
    written = []
    save_place = trainer._save_place

    def noted(epoch, step, place):
        save_place(epoch, step, place)
        written.append((step, [path.name for path in trainer.config.save_dir.glob("*-step*")]))

    trainer._save_place = noted
    trainer.train()
    steps = list(range(2, trainer.global_step + 1, 2))
    assert written == [(step, [f"checkpoint-epoch1-step{step}.pth"]) for step in steps]
    assert sorted(path.name for path in trainer.config.save_dir.glob("*.pth")) == [
        "checkpoint-epoch1.pth",
        "model_best.pth",
    ]


def test_places_are_saved_by_the_clock(tiny_data, tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("base.save_clock.time", SimpleNamespace(monotonic=lambda: now))
    trainer = tiny_run(tiny_data, tmp_path, trainer__epochs=1, trainer__save_every_minutes=1.5)
    step, save_place, saved = trainer._step, trainer._save_place, []

    def one_minute(*args):
        nonlocal now
        now += 60
        return step(*args)

    trainer._step = one_minute
    trainer._save_place = lambda epoch, step, place: (saved.append(step), save_place(epoch, step, place))
    trainer.train()
    assert saved == list(range(2, trainer.global_step + 1, 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"items": 10**6}, "not within an epoch"),
        ({"items": 0}, "not within an epoch"),
        ({"items": 2.5}, "not within an epoch"),
        ({"output": torch.zeros(3, 7)}, "has outputs"),
        ({"target": torch.zeros(16, dtype=torch.float32)}, "target of its place"),
        ({"target": torch.full((16,), 9)}, "has outputs"),
    ],
)
def test_a_place_that_is_not_of_this_run_is_refused(tiny_data, tmp_path, change, says):
    first = tiny_run(tiny_data, tmp_path)
    stop_after(first, 1)
    with pytest.raises(Stopped):
        first.train()
    (path,) = first.config.save_dir.glob("*-step1.pth")
    checkpoint = load_checkpoint(path)
    checkpoint["place"] |= change
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=says):
        tiny_run(tiny_data, tmp_path, resume=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, False),
        ({"data_loader__args__batch_size": 5}, False),
        ({"data_loader__args__balance": "weights"}, True),
        ({"data_loader__args__shuffle": False}, True),
    ],
)
def test_an_epoch_that_goes_on_in_another_order_is_said(tiny_data, tmp_path, caplog, change, said):
    first = tiny_run(tiny_data, tmp_path)
    stop_after(first, 1)
    with pytest.raises(Stopped):
        first.train()
    (path,) = first.config.save_dir.glob("*-step1.pth")
    tiny_run(tiny_data, tmp_path, resume=path, **change)
    assert ("its items come in another order than before" in caplog.text) == said


def test_auto_goes_on_with_the_newest_run_or_begins_one(tiny_data, tmp_path, capsys):
    config = write_config(tmp_path / "c.json", tiny_config(tiny_data, tmp_path, trainer__epochs=1))
    assert run("train", "-c", config, "-r", "auto") == 0
    assert "a new run begins" in capsys.readouterr().err
    (folder,) = (tmp_path / "models" / "tiny").iterdir()
    assert run("train", "-c", config, "-r", "auto", "--set", "trainer.epochs=2") == 0
    assert list((tmp_path / "models" / "tiny").iterdir()) == [folder]
    assert load_checkpoint(folder / "checkpoint-epoch2.pth")["epoch"] == 2
    # A damaged one is passed over.
    newest = folder / "checkpoint-epoch2.pth"
    newest.write_bytes(newest.read_bytes()[:-50])
    assert run("train", "-c", config, "-r", "auto", "--set", "trainer.epochs=2") == 0
    assert f"resumed from {folder / 'checkpoint-epoch1.pth'}" in capsys.readouterr().err
    assert load_checkpoint(newest)["epoch"] == 2


def test_auto_needs_a_config(capsys):
    assert run("train", "-r", "auto") == 1
    assert "no config is named" in capsys.readouterr().err
