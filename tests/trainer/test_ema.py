"""An average of the weights is what is validated, saved to be tested and scored."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.tiny import run, tiny_run
from tests.trainer.test_mid_epoch import same_end, stop_after
from tests.trainer.test_resume import same
from trainer.ema import WeightAverage
from trainer.trained import load_trained
from utils.checkpoint import load_checkpoint
from utils.cli import Stopped
from utils.errors import UserError

EMA = {"trainer__ema": 0.9, "arch__args__norm": True, "data_loader__args__batch_size": 8}


def test_the_average_is_that_of_the_plain_formula():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    average = WeightAverage(net, decay=0.7)
    expected = copy.deepcopy(net.state_dict())
    for n in range(40):
        (net(torch.randn(6, 3)) - 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        decay = min(0.7, (1 + n) / (10 + n))
        for name, value in net.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * value
            expected[name] = mixed if value.is_floating_point() else value.clone()
        torch.testing.assert_close(average.model.state_dict(), expected)
    assert average.steps == 40
    assert expected["1.num_batches_tracked"] == 40
    assert not torch.allclose(average.model[0].weight, net[0].weight)


def test_the_averaged_weights_are_validated_saved_and_loaded_to_be_tested(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, **EMA, trainer__epochs=1)
    figures = trainer.train()
    checkpoint = load_checkpoint(trainer.to_test())
    assert same(dict(checkpoint["state_dict"]), dict(trainer.average.model.state_dict()))
    assert same(dict(checkpoint["training_state"]), dict(trainer.model.state_dict()))
    assert not same(checkpoint["state_dict"]["linear.weight"], checkpoint["training_state"]["linear.weight"])

    tested = load_trained(trainer.to_test(), torch.device("cpu")).model
    batches = list(trainer.valid_data_loader)
    data, target = torch.cat([b.data for b in batches]), torch.cat([b.target for b in batches])
    with torch.no_grad():
        inputs = trainer.frontend.eval()(data)
        of_tested, of_raw = (float(trainer.criterion(net.eval()(inputs), target)) for net in (tested, trainer.model))
    assert figures["val_loss"] == pytest.approx(of_tested, rel=1e-5)
    assert figures["val_loss"] != pytest.approx(of_raw, rel=1e-3)


def test_test_py_scores_the_averaged_weights(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, **EMA, trainer__epochs=1)
    trainer.train()
    assert run("test", "-r", trainer.to_test(), "--split", "valid", "--out-dir", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    batches = list(trainer.valid_data_loader)
    with torch.no_grad():
        output = trainer.average.model(trainer.frontend.eval()(torch.cat([batch.data for batch in batches])))
    np.testing.assert_allclose(table["prob_Normal"], output.softmax(1)[:, 0], atol=1e-4)


def test_the_average_does_not_change_the_training(tiny_data, tmp_path):
    with_it, without = (
        tiny_run(tiny_data, tmp_path, **EMA),
        tiny_run(tiny_data, tmp_path, **EMA | {"trainer__ema": None}),
    )
    for trainer in (with_it, without):
        trainer.train()
    assert same(dict(with_it.model.state_dict()), dict(without.model.state_dict()))
    assert "training_state" not in load_checkpoint(without.to_test())


def test_steps_that_are_left_out_are_not_averaged(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, **EMA, trainer__on_nonfinite="skip", trainer__epochs=1)
    step, before = trainer._step, []

    def spoilt(epoch, number, batches):
        if number != 2:
            return step(epoch, number, batches)
        before.append(copy.deepcopy(trainer.average.model.state_dict()))
        trainer.model.linear.weight.grad.fill_(float("nan"))
        made = step(epoch, number, batches)
        assert same(dict(before[0]), dict(trainer.average.model.state_dict()))
        return made

    trainer._step = spoilt
    trainer.train()
    assert before
    assert trainer.average.steps == len(trainer.data_loader) - 1


def test_a_run_with_an_average_goes_on_from_the_midst_of_an_epoch_to_the_same_end(tiny_data, tmp_path):
    changes = EMA | {"arch__args__dropout": 0.5, "data_loader__args__augment": {"mixup": 0.5, "time_masks": 1}}
    changes |= {"data_loader__args__balance": "sqrt_weights", "trainer__epochs": 3}
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()
    steps = len(straight.data_loader)
    # In the first epoch, and in the second.
    for stop in (2, steps + 1):
        folder = tmp_path / f"parts{stop}"
        first = tiny_run(tiny_data, folder, **changes)
        stop_after(first, stop)
        with pytest.raises(Stopped):
            first.train()
        (place,) = first.config.save_dir.glob("*-step*.pth")
        torch.manual_seed(stop)
        second = tiny_run(tiny_data, folder, resume=place, **changes)
        second.train()
        same_end(straight, second)


@pytest.mark.parametrize(
    ("then", "now", "says"),
    [
        (0.9, None, "trainer.ema: is null, but .* was trained with 0.9"),
        (0.9, 0.99, "trainer.ema: is 0.99, but .* was trained with 0.9"),
        (None, 0.99, "trainer.ema: is 0.99, but .* was trained with null"),
    ],
)
def test_a_run_goes_on_with_the_same_average_only(tiny_data, tmp_path, then, now, says):
    first = tiny_run(tiny_data, tmp_path, trainer__ema=then, trainer__epochs=1)
    first.train()
    with pytest.raises(UserError, match=says):
        tiny_run(tiny_data, tmp_path, resume=first.to_test(), trainer__ema=now)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("training_state", None, "training_state holds no weights"),
        ("training_state", {"linear.weight": torch.zeros(2, 64)}, "no linear.bias"),
        ("ema", {"decay": 0.9}, "ema has no steps"),
        ("ema", {"decay": 0.9, "steps": "many"}, "ema.steps is 'many'"),
    ],
)
def test_a_damaged_average_is_one_error(tiny_data, tmp_path, key, value, says):
    first = tiny_run(tiny_data, tmp_path, trainer__ema=0.9, trainer__epochs=1)
    first.train()
    checkpoint = load_checkpoint(first.to_test())
    torch.save(checkpoint | {key: value}, first.to_test())
    with pytest.raises(UserError, match=says):
        tiny_run(tiny_data, tmp_path, resume=first.to_test(), trainer__ema=0.9)
