"""A run that goes on from an earlier place, or under another name."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import pytest

from base.run_files import newest_checkpoint
from utils.checkpoint import load_checkpoint

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
