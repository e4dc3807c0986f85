from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from tests.tiny import tiny_config
from trainer.check import check_config
from trainer.optimization import Schedule, lr_schedulers, make_optimizer, optimizers, watched_figure
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError

STEPS = 3
SCHEDULES = {
    "ConstantLR": {},
    "CosineAnnealingLR": {"T_max": 4},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 4},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [2, 4]},
    "OneCycleLR": {"max_lr": 1.0},
    "PolynomialLR": {"total_iters": 5},
    "ReduceLROnPlateau": {"patience": 0, "factor": 0.5},
    "StepLR": {"step_size": 2},
}


def config_of(name, args=None, **changes):
    section = name and {"type": name, "args": args or {}}
    return ConfigParser(
        tiny_config("data", "saved", lr_scheduler=section, optimizer={"type": "SGD", "args": {"lr": 0.1}}, **changes)
    )


def build(config, monitor=("off", None)):
    layer = nn.Linear(1, 1)
    optimizer = make_optimizer(config, [{"params": list(layer.parameters())}])
    return optimizer, Schedule(config, optimizer, STEPS, monitor)


def run(optimizer, schedule, epochs):
    """The learning rate at every step."""
    rates = []
    for epoch in epochs:
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch({"val_loss": float(epoch // 2)})
    return rates


def test_all_schedules_that_a_config_can_name_are_covered_here():
    assert set(SCHEDULES) == set(lr_schedulers)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_goes_on_as_if_never_stopped(tmp_path, name):
    config = config_of(name, SCHEDULES[name], trainer__epochs=6)
    straight = run(*build(config), range(6))

    optimizer, schedule = build(config)
    first = run(optimizer, schedule, range(3))
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    rest = {"config": {}, "epoch": 3, "state_dict": {}, "classes": [], "input": {}}
    save_checkpoint(tmp_path / "c.pth", state | rest)
    state = load_checkpoint(tmp_path / "c.pth")
    optimizer, schedule = build(config)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"], steps_made=9)

    assert first + run(optimizer, schedule, range(3, 6)) == straight
    assert len(set(straight)) > 1


def test_schedules_step_by_epoch_batch_and_metric():
    def rates(name):
        return run(*build(config_of(name, SCHEDULES[name], trainer__epochs=4)), range(4))

    by_epoch, by_batch, by_metric = rates("StepLR"), rates("OneCycleLR"), rates("ReduceLROnPlateau")
    assert by_epoch == pytest.approx([0.1] * 6 + [0.01] * 6)
    assert len(set(by_batch)) == 12
    assert max(by_batch) == pytest.approx(1.0, rel=0.05)
    # val_loss is 0, 0, 1, 1: the second epoch is the first without improvement.
    assert by_metric == pytest.approx([0.1] * 6 + [0.05] * 3 + [0.025] * 3)


def test_no_schedule_keeps_the_learning_rate():
    assert set(run(*build(config_of(None)), range(3))) == {0.1}


def test_one_cycle_takes_peak_and_length_from_the_run():
    optimizer, schedule = build(config_of("OneCycleLR", trainer__epochs=4))
    rates = run(optimizer, schedule, range(4))
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[-1] < rates[0] < max(rates)


def test_a_cycle_shorter_than_the_run_is_refused_before_it_ends_there():
    with pytest.raises(UserError, match=r"ends after 5 steps, this run has 12 .*leave out"):
        build(config_of("OneCycleLR", {"max_lr": 1.0, "total_steps": 5}, trainer__epochs=4))
    with pytest.raises(UserError, match="ends after 6 steps"):
        build(config_of("OneCycleLR", {"epochs": 2, "steps_per_epoch": 3}, trainer__epochs=4))
    build(config_of("OneCycleLR", {"epochs": 4, "steps_per_epoch": 3}, trainer__epochs=4))


def test_a_cycle_cannot_be_resumed_with_another_length():
    _, short = build(config_of("OneCycleLR", trainer__epochs=2))
    _, long = build(config_of("OneCycleLR", trainer__epochs=4))
    with pytest.raises(UserError, match="laid out for 6 steps, this run has 12"):
        long.load_state_dict(short.state_dict(), steps_made=0)


@pytest.mark.parametrize("at", [-1, 4, 255, None])
def test_a_cycle_that_is_not_where_its_run_was_is_refused_before_it_goes_on(at):
    _, schedule = build(config_of("OneCycleLR", trainer__epochs=4))
    state = schedule.state_dict()
    state["state"]["last_epoch"] = at
    with pytest.raises(UserError, match=f"is at step {at} in the checkpoint, whose run had made 3"):
        schedule.load_state_dict(state, steps_made=3)


def test_the_shape_of_a_cycle_is_the_configs_whatever_a_checkpoint_says():
    config = config_of("OneCycleLR", trainer__epochs=4)
    straight = run(*build(config), range(4))
    optimizer, schedule = build(config)
    state = schedule.state_dict()
    state["state"]["_schedule_phases"] = [{"start_lr": None}] * 2
    state["state"]["_anneal_func_type"] = None
    schedule.load_state_dict(state, steps_made=0)
    assert run(optimizer, schedule, range(4)) == straight


def test_another_schedule_cannot_be_resumed():
    _, step = build(config_of("StepLR", {"step_size": 1}))
    _, none = build(config_of(None))
    with pytest.raises(UserError, match="the checkpoint has StepLR"):
        none.load_state_dict(step.state_dict(), steps_made=0)


def test_an_undefined_figure_is_no_plateau():
    optimizer, schedule = build(config_of("ReduceLROnPlateau", {"patience": 0}), ("max", "val_score"))
    for value in (0.5, math.nan, math.nan):
        schedule.after_epoch({"val_score": value})
    schedule.after_epoch({})
    assert optimizer.param_groups[0]["lr"] == 0.1
    schedule.after_epoch({"val_score": 0.4})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_plateau_is_that_of_the_monitor():
    optimizer, schedule = build(config_of("ReduceLROnPlateau", {"patience": 0}), ("max", "val_score"))
    for value in (0.1, 0.2, 0.3):
        schedule.after_epoch({"val_score": value, "val_loss": 1.0})
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("name", list(optimizers))
def test_every_optimizer_that_a_config_can_name_trains_and_resumes(tmp_path, name):
    args = {"lr": 0.1, "weight_decay": 0.0} if name != "Rprop" else {"lr": 0.1}
    config = ConfigParser(tiny_config("data", "saved", optimizer={"type": name, "args": args}))

    def steps(layer, optimizer, count):
        for _ in range(count):
            layer(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [value.detach().clone() for value in layer.parameters()]

    def fresh():
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, make_optimizer(config, [{"params": list(layer.parameters())}])

    straight = steps(*fresh(), 4)
    layer, optimizer = fresh()
    steps(layer, optimizer, 2)
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    again = make_optimizer(config, [{"params": list(layer.parameters())}])
    again.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert all(map(torch.equal, steps(layer, again, 2), straight))


@pytest.mark.parametrize("args", [{"lr": -1}, {"lr": "fast"}, {"betas": [0.9, 2.0]}])
def test_a_value_that_an_optimizer_refuses_is_an_error_of_the_config(args):
    config = ConfigParser(tiny_config("data", "saved", optimizer={"type": "AdamW", "args": args}))
    with pytest.raises(UserError, match=r"optimizer\.args"):
        make_optimizer(config, [{"params": [nn.Parameter(torch.zeros(1))]}])


def no_decay_config(name="AdamW", **changes):
    args = {"lr": 0.1, "weight_decay": 0.5}
    return ConfigParser(
        tiny_config("data", "saved", optimizer={"type": name, "args": args, "no_decay_1d": True}, **changes)
    )


def test_matrices_alone_decay_and_groups_keep_their_learning_rates():
    layer, norm, last = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
    groups = [
        {"params": [*last.parameters()]},
        {"params": [*layer.parameters(), *norm.parameters()], "lr_scale": 0.5},
    ]
    optimizer = make_optimizer(no_decay_config(), groups)
    found = {p: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert found == {
        last.weight: (0.1, 0.5),
        last.bias: (0.1, 0.0),
        layer.weight: (0.05, 0.5),
        **dict.fromkeys((layer.bias, norm.weight, norm.bias), (0.05, 0.0)),
    }
    # And the schedule keeps the scale.
    schedule = Schedule(no_decay_config(lr_scheduler={"type": "OneCycleLR"}), optimizer, STEPS)
    schedule.after_batch()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[2:] == pytest.approx([rates[0] / 2] * 2)


def test_an_optimizer_without_weight_decay_cannot_leave_it_out():
    config = ConfigParser(tiny_config("data", "saved", optimizer={"type": "Rprop", "no_decay_1d": True}))
    with pytest.raises(UserError, match=r"optimizer\.no_decay_1d: is true, but Rprop has no weight decay"):
        make_optimizer(config, [{"params": [nn.Parameter(torch.zeros(1))]}])


def test_the_monitor_says_mode_and_figure():
    assert watched_figure(config_of(None)) == ("min", "val_loss")
    assert watched_figure(config_of(None, trainer__monitor="off")) == ("off", None)


def test_checking_a_config_gives_no_warning(tiny_data, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, args in SCHEDULES.items():
            check_config(ConfigParser(tiny_config(tiny_data, tmp_path, lr_scheduler={"type": name, "args": args})))
