from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from data_loader.frontend import InputSpec
from tests.tiny import tiny_run
from trainer.inference import predict, refuse_other_input, to_input
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def trainer(tiny_data, tmp_path):
    return tiny_run(tiny_data, tmp_path, arch__args__dropout=0.5, data_loader__args__batch_size=5)


def test_every_item_is_predicted_once_in_the_order_of_the_loader(trainer):
    found = predict(trainer.model, trainer.frontend, trainer.valid_data_loader, CPU)
    valid = trainer.data_loader.valid_indices
    assert found.index.tolist() == valid.tolist()
    assert found.target.tolist() == trainer.data_loader.dataset.labels[valid].tolist()
    assert found.output.shape == (len(valid), 2)
    assert found.output.dtype == torch.float32


def test_a_process_without_an_item_has_those_of_the_others(trainer, monkeypatch):
    whole = predict(trainer.model, trainer.frontend, trainer.valid_data_loader, CPU)
    others = iter(whole)
    monkeypatch.setattr("trainer.inference.gather", lambda mine: torch.cat([mine, next(others)]))
    found = predict(trainer.model, trainer.frontend, [], CPU)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_put_back(trainer, training):
    trainer.model.train(training)
    trainer.frontend.train(not training)
    first = predict(trainer.model, trainer.frontend, trainer.valid_data_loader, CPU)
    second = predict(trainer.model, trainer.frontend, trainer.valid_data_loader, CPU)
    assert torch.equal(first.output, second.output)
    assert trainer.model.training == training
    assert trainer.frontend.training != training


def test_the_batch_size_does_not_change_predictions(trainer):
    one = predict(trainer.model, trainer.frontend, trainer.data_loader.evaluation("train"), CPU)
    batches = list(trainer.data_loader.evaluation("train"))
    trainer.model.eval()
    data = torch.cat([batch.data for batch in batches])
    with torch.no_grad():
        whole = trainer.model(trainer.frontend.eval()(data))
    torch.testing.assert_close(one.output, whole)


def test_items_are_loaded_in_single_precision_whatever_the_model_computes_in(trainer):
    seen = []

    def batches():
        for batch in trainer.valid_data_loader:
            seen.append(torch.is_autocast_enabled("cpu"))
            yield batch

    hook = trainer.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    predict(trainer.model, trainer.frontend, batches(), CPU, "bf16")
    hook.remove()
    assert seen == [False, True] * len(trainer.valid_data_loader)


def test_features_are_made_in_single_precision_under_autocast(trainer):
    batch = next(iter(trainer.valid_data_loader))
    with torch.autocast("cpu", torch.bfloat16):
        inputs = to_input(trainer.frontend, batch, CPU)
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "mel"},
        {"params": {"n_mels": 3}},
        {"shape": (1, 2)},
        {"weights": "b"},
        {"rate": 4000},
        {"duration": 3.0},
    ],
)
def test_features_made_in_another_way_are_refused(change):
    then = InputSpec("stft", {"n_mels": 2}, "here", (1, 3), weights="a", rate=8000, duration=2.0)
    # Where the features lie, and what they are normalised by, may differ.
    refuse_other_input(Path("c.pth"), then, dataclasses.replace(then, input_dir="elsewhere", mean=3.0))
    with pytest.raises(UserError, match=f"features with {next(iter(change))}"):
        refuse_other_input(Path("c.pth"), then, dataclasses.replace(then, **change))
