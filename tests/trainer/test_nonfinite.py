"""Steps that are not finite stop a run, or are left out of it."""

from __future__ import annotations

import copy
import logging

import pytest
import torch

from tests.tiny import tiny_run
from tests.trainer.test_trainer import differences, weights
from utils.checkpoint import load_checkpoint
from utils.errors import UserError


class Overflow(torch.autograd.Function):
    """Leaves values as they are and makes their gradient infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient + float("inf")


def spoil(trainer, batches, how):
    """Make the n-th training batches of a run give NaN, or an infinite gradient."""
    count = 0

    def hook(module, args, output):
        nonlocal count
        count += module.training
        bad = module.training and count in batches
        if bad and how == "loss":
            return output + float("nan")
        return Overflow.apply(output) if bad else output

    trainer.model.linear.register_forward_hook(hook)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_stops_the_run_and_says_where(tiny_data, tmp_path, caplog, what):
    trainer = tiny_run(tiny_data, tmp_path, trainer__epochs=3)
    per_epoch = len(trainer.data_loader)
    drawn = []
    trainer.frontend.register_forward_pre_hook(lambda *_: drawn.append(None))
    spoil(trainer, [per_epoch + 2], what)
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as error:
        trainer.train()
    trainer.data_loader.set_epoch(2)
    items = list(trainer.data_loader.sampler)[16:32]
    names = ", ".join(trainer.data_loader.dataset.names[items[:3]])
    assert f"the {what} is not finite in epoch 2, batch 2, at a learning rate of 0.01" in str(error.value)
    assert f"with the items {names} and 13 more" in str(error.value)
    assert "lower learning rate" in str(error.value)
    last = trainer.config.save_dir / "checkpoint-epoch1.pth"
    assert f"the last checkpoint is whole: {last}" in caplog.text
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(last)["state_dict"].values())


def test_on_a_gpu_steps_are_looked_at_whenever_the_loss_is_shown(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.trainer.LOG_SECONDS", 0.0)
    trainer = tiny_run(tiny_data, tmp_path, data_loader__args__batch_size=4)
    # As on a GPU: not each step by itself.
    trainer.nonfinite._each = False
    spoil(trainer, [2], "loss")
    with pytest.raises(UserError, match="epoch 1, batch 2"):
        trainer.train()
    assert trainer.global_step == 2


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_can_be_left_out(tiny_data, tmp_path, caplog, what, accumulate):
    """What is left is the run without its batches."""
    changes = {"arch__args__norm": True, "trainer__epochs": 1, "trainer__accumulate": accumulate}
    changes |= {"data_loader__args__batch_size": 8}
    changes |= {"lr_scheduler": {"type": "OneCycleLR", "args": {}}, "trainer__on_nonfinite": "skip"}
    trainer = tiny_run(tiny_data, tmp_path / "spoilt", **changes)
    spoil(trainer, [accumulate + 1], what)
    with caplog.at_level(logging.WARNING):
        figures = trainer.train()
    assert f"the {what} is not finite in epoch 1, batch {2 * accumulate}" in caplog.text
    assert "epoch 1: 1 steps were left out" in caplog.text
    assert figures["loss"] == figures["loss"]

    plain = tiny_run(tiny_data, tmp_path / "plain", **changes)
    train_batch, step = plain._train_batch, plain._step

    def step_but_the_second(epoch, number, batches):
        if number != 2 * accumulate:
            return step(epoch, number, batches)
        plain.stepper.gradient_norm()
        plain.stepper.leave_out()
        plain.model.load_state_dict(before)
        return None

    def train_batch_and_keep(epoch, items, batch):
        nonlocal before
        if items == 8 * accumulate:
            before = copy.deepcopy(plain.model.state_dict())
        return train_batch(epoch, items, batch)

    before = None
    plain._step, plain._train_batch = step_but_the_second, train_batch_and_keep
    plain.train()
    assert not differences(weights(trainer), weights(plain))
    assert trainer.schedule.state_dict() == plain.schedule.state_dict()


def test_an_epoch_without_one_good_step_stops_the_run(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, trainer__on_nonfinite="skip")
    spoil(trainer, range(1000), "loss")
    with pytest.raises(UserError, match="no step of epoch 1 has a finite loss"):
        trainer.train()


def test_an_overflow_in_fp16_is_the_scalers(tiny_data, tmp_path, caplog):
    trainer = tiny_run(tiny_data, tmp_path, trainer__precision="fp16", trainer__epochs=1)
    spoil(trainer, [2], "gradient")
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "not finite" not in caplog.text
    assert all(tensor.isfinite().all() for tensor in weights(trainer).values())
