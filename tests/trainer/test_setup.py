from __future__ import annotations

import logging

import pytest
import torch

from tests.tiny import tiny_run
from tests.whole_run import scalars
from trainer.setup import example_inputs
from utils.errors import UserError


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
