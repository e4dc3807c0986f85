from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import model.weights
from tests.tiny import tiny_config, tiny_run
from tests.whole_run import scalars
from trainer.building import make_criterion, make_loader, make_model
from trainer.setup import example_inputs
from utils.config import ConfigParser
from utils.errors import UserError


def parser(tiny_data, tmp_path, **changes):
    return ConfigParser(tiny_config(tiny_data, tmp_path, **changes))


def test_the_loader_takes_the_seed_of_the_config_unless_it_has_its_own(tiny_data, tmp_path):
    assert make_loader(parser(tiny_data, tmp_path, seed=4)).seed == 4
    assert make_loader(parser(tiny_data, tmp_path, seed=4, data_loader__args__seed=7)).seed == 7


def test_another_seed_draws_other_items_of_the_same_split(tiny_data, tmp_path):
    changes = {"data_loader__args__seed": 0, "data_loader__args__balance": "weights"}
    one, other = (make_loader(parser(tiny_data, tmp_path, seed=seed, **changes)) for seed in (0, 1))
    assert one.train_indices.tolist() == other.train_indices.tolist()
    assert list(one.sampler) != list(other.sampler)


def test_a_restored_model_fetches_no_weights(tiny_data, tmp_path, monkeypatch):
    def unreachable(*args):
        raise UserError("hub", "was reached for")

    for module in ("model.resnet", "model.ast"):
        monkeypatch.setattr(f"{module}.hub_files", unreachable)
    monkeypatch.setattr(model.weights, "hub_files", unreachable)
    small = {"label_dim": 2, "model_size": "tiny224", "imagenet_pretrain": True, "input_tdim": 32, "input_fdim": 32}
    for arch in (
        {"type": "ResNet18", "args": {"label_dim": 2, "pretrained": True}},
        {"type": "ASTModel", "args": small},
    ):
        config = parser(tiny_data, tmp_path, arch=arch)
        with pytest.raises(UserError, match="was reached for"):
            make_model(config)
        assert isinstance(make_model(config, restore=True), nn.Module)


@pytest.mark.parametrize("loss", ["focal", {"type": "focal"}, {"type": "focal", "args": {"gamma": 1.0}}])
def test_a_loss_may_be_a_plain_name(tiny_data, tmp_path, loss):
    config = parser(tiny_data, tmp_path, loss=loss)
    criterion = make_criterion(config, make_loader(config))
    assert criterion.weight is None
    assert criterion.gamma == (2.0 if "args" not in loss else 1.0)


def test_examples_show_every_class_as_the_model_sees_it_unaugmented(tiny_data, tmp_path):
    augment = {"time_masks": 9, "time_width": 1.0}
    trainer = tiny_run(tiny_data, tmp_path, data_loader__args__augment=augment)
    inputs, labels = example_inputs(trainer)
    again, _ = example_inputs(trainer)
    assert inputs.shape == (8, 1, 224, 224)
    assert set(labels) == {"Normal", "Adventitious"}
    assert torch.equal(inputs, again)


def test_the_console_gets_the_size_of_the_model_and_the_log_all_of_it(tiny_data, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        tiny_run(tiny_data, tmp_path)
    by_level = {record.levelno: record.getMessage() for record in caplog.records if "iny" in record.getMessage()}
    assert by_level[logging.INFO] == "Tiny: 130 trainable parameters"
    assert "(linear): Linear" in by_level[logging.DEBUG]


def test_several_processes_need_shuffled_items(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.setup.world_size", lambda: 2)
    with pytest.raises(UserError, match=r"data_loader\.args\.shuffle: is false, but several processes train"):
        tiny_run(tiny_data, tmp_path, data_loader__args__shuffle=False)


def test_a_log_of_later_epochs_stays_where_nothing_is_left_to_train(tiny_data, tmp_path):
    changes = {"trainer__tensorboard": True, "loss": {"type": "cross_entropy"}}
    run = tiny_run(tiny_data, tmp_path, **changes)
    run.finish(run.train())
    logs = [run.config.log_dir, run.config.log_dir / "train"]
    before = [scalars(log) for log in logs]
    assert all(len(points) == 2 for points in before[1].values())
    checkpoint = run.config.save_dir / "checkpoint-epoch1.pth"
    again = tiny_run(tiny_data, tmp_path, checkpoint, **changes, trainer__epochs=1)
    again.finish(again.train())
    assert [scalars(log) for log in logs] == before
