"""The same config and seed give the same run, to the bit, and the seed decides all that is random."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.processes import SCRIPT
from tests.tiny import ROOT, tiny_config, tiny_run, write_config
from tests.whole_run import begin, differences, folder_for, outcome
from utils.checkpoint import load_checkpoint

WORKERS = (0, 0, 1, 1, 2, 2)


def test_two_whole_runs_of_one_config_are_the_same_with_any_number_of_workers(tiny_data, tmp_path):
    # The place that a step begins at decides what it draws, not how often the run saved.
    changes = {"lr_scheduler": {"type": "OneCycleLR", "args": {}}, "trainer__epochs": 2, "trainer__tensorboard": True}
    folders = [folder_for(tmp_path / str(number), tiny_data, **changes) for number in range(len(WORKERS))]
    for folder, workers in zip(folders, WORKERS, strict=True):
        assert not begin(folder, ("--set", f"data_loader.args.num_workers={workers}")).was_killed()
    first, *others = map(outcome, folders)
    assert [differences(first, other) for other in others] == [[]] * len(others)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_deterministic_runs_on_a_gpu_are_the_same_with_any_number_of_workers(tiny_data, tmp_path):
    found = []
    for number, workers in enumerate(WORKERS):
        changes = {"trainer__deterministic": True, "trainer__precision": "bf16", "data_loader__args__batch_size": 8}
        changes |= {"arch": {"type": "LightCNN", "args": {"label_dim": 2}}, "data_loader__args__num_workers": workers}
        folder = tmp_path / str(number)
        config = write_config(tmp_path / f"{number}.json", tiny_config(tiny_data, folder, **changes))
        # Each in a process of its own: what makes products deterministic is read when CUDA starts.
        command = [sys.executable, "-c", SCRIPT, "-c", str(config), "-d", "0"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (checkpoint,) = folder.rglob("checkpoint-epoch2.pth")
        found.append(load_checkpoint(checkpoint))
    first, *others = found
    for other in others:
        assert other["state_dict"].keys() == first["state_dict"].keys()
        for name, value in first["state_dict"].items():
            assert torch.equal(value, other["state_dict"][name]), name


def test_initial_weights_of_a_whole_run_follow_the_seed(tiny_data, tmp_path):
    # With a learning rate of 0 and no normalisation the last weights are the first.
    changes = {"optimizer__args__lr": 0.0, "arch__args__norm": False, "trainer__epochs": 1}
    found = []
    for number, seed in enumerate((0, 0, 1)):
        folder = folder_for(tmp_path / str(number), tiny_data, **changes, seed=seed, optimizer__args__weight_decay=0.0)
        assert not begin(folder).was_killed()
        found.append(outcome(folder)["published: state_dict"])
    assert torch.equal(found[0]["linear.weight"], found[1]["linear.weight"])
    assert not torch.equal(found[0]["linear.weight"], found[2]["linear.weight"])


def order(trainer) -> list[torch.Tensor]:
    """The items of the first epoch's batches."""
    trainer.data_loader.set_epoch(1)
    return [batch.index for batch in trainer.data_loader]


def augmented(trainer) -> list[torch.Tensor]:
    """The model inputs of two epochs."""
    seen = []
    trainer.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    for epoch in (1, 2):
        trainer._train_epoch(epoch)
    return seen


def dropped(trainer) -> list[torch.Tensor]:
    """Where dropout put zeros in two epochs."""
    seen = []
    trainer.model.dropout.register_forward_hook(lambda module, args, output: seen.append(output == 0))
    for epoch in (1, 2):
        trainer._train_epoch(epoch)
    return seen


# What the loader's seed decides, the split and the order, is the same for the last two.
FIXED = {"data_loader__args__seed": 0, "data_loader__args__shuffle": False}


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        (order, {}),
        (augmented, FIXED | {"data_loader__args__augment": {"time_masks": 2, "freq_masks": 2}}),
        (dropped, FIXED | {"arch__args__dropout": 0.5}),
    ],
)
def test_what_is_random_follows_the_seed(tiny_data, tmp_path, part, changes):
    common = {"data_loader__args__validation_split": 0, "data_loader__args__batch_size": 22}
    one, again, other = (
        part(tiny_run(tiny_data, tmp_path, trainer__monitor="off", seed=seed, **common, **changes))
        for seed in (0, 0, 1)
    )
    assert len(one) > 1
    assert all(map(torch.equal, one, again))
    assert not any(map(torch.equal, one, other))
    # Nor does a batch or an epoch repeat another.
    assert not any(torch.equal(a, b) for n, a in enumerate(one) for b in one[:n])
