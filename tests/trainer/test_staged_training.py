"""Stages of a pretrained network that are frozen, set free by epoch, and trained at rates of their own."""

from __future__ import annotations

import itertools
import os
import signal

import pytest
import torch
from torch import nn

from tests.processes import trained_with_two
from tests.tiny import tiny_config, tiny_run, write_config
from tests.trainer.test_resume import same
from trainer.optimization import Schedule, make_optimizer
from utils.checkpoint import load_checkpoint
from utils.cli import Stopped
from utils.config import ConfigParser

STAGED = {
    "arch": {
        "type": "TimmModel",
        "args": {
            "label_dim": 2,
            "backbone": "test_resnet",
            "weights": None,
            "freeze": "backbone",
            "unfreeze_at": [2, 3],
            "layer_decay": 0.5,
        },
    },
    "lr_scheduler": {"type": "OneCycleLR"},
    "trainer__epochs": 3,
    "trainer__monitor": "off",
    "trainer__keep_last": None,
    "data_loader__args__batch_size": 30,
}


def states(folder):
    return [load_checkpoint(folder / f"checkpoint-epoch{epoch}.pth")["state_dict"] for epoch in (1, 2, 3)]


def changed(before, after):
    """Names of the parameters and buffers that training changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def straight(tiny_data, tmp_path_factory):
    """A run over all epochs, and its weights before the first."""
    trainer = tiny_run(tiny_data, tmp_path_factory.mktemp("straight"), **STAGED)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    return trainer, start


def test_each_epoch_trains_what_is_free_in_it_and_nothing_else(straight):
    trainer, start = straight
    first, second, third = states(trainer.config.save_dir)
    stages = [{f"network.{name}" for name in stage} for stage in trainer.model.stages]
    last = {"network.fc.weight", "network.fc.bias"}
    # Not even the statistics of a frozen stage change.
    assert changed(start, first) == last
    parameters = {name for name, _ in trainer.model.named_parameters()}
    assert len(stages) == 5
    assert changed(first, second) & parameters == set.union(last, *stages[2:])
    assert changed(second, third) >= parameters


@pytest.mark.parametrize("stop", ["after epoch 1", "after epoch 2", "in epoch 3"])
def test_a_resumed_run_sets_free_what_the_straight_run_did(tiny_data, tmp_path, straight, stop):
    straight, _ = straight
    steps = straight.global_step // 3
    assert steps > 1
    first = tiny_run(tiny_data, tmp_path, **STAGED)
    count = itertools.count(1)
    number = {"after epoch 1": steps, "after epoch 2": 2 * steps, "in epoch 3": 2 * steps + 1}[stop]
    first.optimizer.register_step_post_hook(
        lambda *_: os.kill(os.getpid(), signal.SIGTERM) if next(count) == number else None
    )
    with pytest.raises(Stopped):
        first.train()
    torch.manual_seed(12345)  # what a new process would not know must not matter
    newest = max(first.config.save_dir.glob("checkpoint-epoch*.pth"), key=lambda path: path.stat().st_mtime_ns)
    second = tiny_run(tiny_data, tmp_path, resume=newest, **STAGED)
    second.train()
    ours, theirs = (load_checkpoint(run.config.save_dir / "checkpoint-epoch3.pth") for run in (second, straight))
    for key in ("state_dict", "optimizer", "schedule", "global_step"):
        assert same(ours[key], theirs[key]), key


def test_a_group_is_trained_at_its_scale_of_the_learning_rate(tiny_data, tmp_path):
    for name, args in (
        ("OneCycleLR", {}),
        ("OneCycleLR", {"max_lr": 0.1}),
        ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False}),
        ("StepLR", {"step_size": 1}),
    ):
        config = ConfigParser(tiny_config(tiny_data, tmp_path, lr_scheduler={"type": name, "args": args}))
        layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
        groups = [{"params": layers[0].parameters()}, {"params": layers[1].parameters(), "lr_scale": 0.5}]
        optimizer = make_optimizer(config, groups)
        schedule = Schedule(config, optimizer, 3)
        for _ in range(3):
            full, half = (group["lr"] for group in optimizer.param_groups)
            assert half == pytest.approx(full / 2)
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch({})
        assert optimizer.param_groups[1]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / 2)


def test_two_processes_train_what_is_set_free_alike(tiny_data, tmp_path):
    # Without batch normalisation, whose statistics are of a process: one process with twice the batch is the same.
    arch = {**STAGED["arch"], "args": {**STAGED["arch"]["args"], "backbone": "test_convnext"}}
    changes = STAGED | {
        "arch": arch,
        "optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}},
        "data_loader__args__validation_split": 20,
        "trainer__grad_clip": None,
    }
    alone = tiny_run(tiny_data, tmp_path / "one", **changes | {"data_loader__args__batch_size": 12})
    assert len(alone.data_loader.train_indices) % 2 == 0
    alone.train()
    config = tiny_config(tiny_data, tmp_path / "two", **changes | {"data_loader__args__batch_size": 6})
    trained_with_two(tmp_path, "-c", write_config(tmp_path / "c.json", config))
    (folder,) = (tmp_path / "two" / "models" / "tiny").iterdir()
    for ours, theirs in zip(states(folder), states(alone.config.save_dir), strict=True):
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4)
