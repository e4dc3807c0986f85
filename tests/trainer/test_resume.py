"""A resumed run is the run that was never stopped, to the bit."""

from __future__ import annotations

import json

import pytest
import torch

from tests.tiny import tiny_run
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

AUGMENT = {"time_masks": 2, "freq_masks": 2}
COMMON = {"arch__args__dropout": 0.5, "arch__args__norm": True, "data_loader__args__augment": AUGMENT}
PLATEAU = {"type": "ReduceLROnPlateau", "args": {"patience": 0, "factor": 0.5}}
CASES = {
    "one cycle": {"lr_scheduler": {"type": "OneCycleLR", "args": {"pct_start": 0.5}}},
    "plateau, early stop": {
        "lr_scheduler": PLATEAU,
        "trainer__early_stop": 50,
        "trainer__monitor": "max val_accuracy",
    },
    "by epoch, workers": {
        "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}},
        "data_loader__args__num_workers": 2,
    },
    "oversampled": {"data_loader__args__balance": "oversample", "trainer__save_period": 3},
    "drawn by weights": {"data_loader__args__balance": "weights", "trainer__accumulate": 2},
    "momentum": {"optimizer": {"type": "SGD", "args": {"lr": 0.1, "momentum": 0.9}}, "trainer__grad_clip": 0.1},
    "half precision": {"trainer__precision": "fp16"},
    "waveforms": {
        "data_loader__args__input_dir": None,
        "data_loader__args__frontend": "stft",
        "data_loader__args__duration": 0.5,
        "data_loader__args__augment": {"gain_db": 6, "noise_db": 20, "shift": 0.5},
    },
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def without_speed(history):
    return [{k: v for k, v in figures.items() if k != "samples_per_second"} for figures in history]


@pytest.mark.parametrize("case", CASES)
def test_two_epochs_and_two_more_are_four_epochs(tiny_data, tmp_path, case):
    changes = COMMON | CASES[case] | {"trainer__epochs": 4, "trainer__keep_last": None}
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()

    first = tiny_run(tiny_data, tmp_path / "parts", **changes)
    first.epochs = 2  # the schedule is laid out for 4
    first.train()
    # What a new process would not know must not matter.
    torch.manual_seed(12345)
    second = tiny_run(tiny_data, tmp_path / "parts", resume=first.config.save_dir / "checkpoint-epoch2.pth", **changes)
    assert second.config.save_dir == first.config.save_dir
    second.train()

    one, other = (load_checkpoint(run.config.save_dir / "checkpoint-epoch4.pth") for run in (straight, second))
    assert one.keys() == other.keys()
    for key in one.keys() - {"history", "config", "origins"}:
        assert same(one[key], other[key]), key
    assert without_speed(one["history"]) == without_speed(other["history"])
    lines = (second.config.save_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == second.history
    best = [load_checkpoint(run.config.save_dir / "model_best.pth") for run in (straight, second)]
    assert best[0]["epoch"] == best[1]["epoch"]
    assert same(best[0]["state_dict"], best[1]["state_dict"])


@pytest.mark.parametrize("monitor", ["min val_loss", "max val_score_task1"])
def test_a_plateau_of_one_figure_is_none_of_another(tiny_data, tmp_path, monitor):
    first = tiny_run(tiny_data, tmp_path, trainer__epochs=1, trainer__monitor=monitor, lr_scheduler=PLATEAU)
    first.metric_ftns["score_task1"] = lambda output, target: 0.9
    assert first.train()[monitor.split()[1]] > 0.1
    changes = {"lr_scheduler": PLATEAU, "trainer__monitor": "max val_accuracy"}
    path = first.config.save_dir / "checkpoint-epoch1.pth"
    rates = []
    for epochs in (2, 3):
        second = tiny_run(tiny_data, tmp_path, resume=path, trainer__epochs=epochs, **changes)
        second.metric_ftns["accuracy"] = lambda output, target: 0.1
        second.train()
        rates.append(second.optimizer.param_groups[0]["lr"])
        path = second.config.save_dir / f"checkpoint-epoch{epochs}.pth"
    # The first accuracy is the best so far, the second is no better.
    assert rates == [0.01, 0.005]


def test_workers_do_not_change_the_result(tiny_data, tmp_path):
    runs = [tiny_run(tiny_data, tmp_path, **COMMON, data_loader__args__num_workers=n) for n in (0, 2)]
    for run in runs:
        run.train()
    assert same(runs[0].model.state_dict(), runs[1].model.state_dict())


@pytest.fixture
def checkpoint(tiny_data, tmp_path):
    run = tiny_run(tiny_data, tmp_path, trainer__epochs=1)
    run.train()
    return run.config.save_dir / "checkpoint-epoch1.pth"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arch__args__norm": True}, "does not fit the model: no norm.weight"),
        ({"optimizer__args__lr": 0.5}, "optimizer: differs from that of"),
        ({"lr_scheduler": {"type": "StepLR", "args": {"step_size": 1}}}, "lr_scheduler: differs from that of"),
        (
            {"data_loader__args__input_dir": None, "data_loader__args__frontend": "stft"},
            "was trained on stored features, these are features computed in the step",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_config_is_one_error(tiny_data, tmp_path, checkpoint, changes, says):
    with pytest.raises(UserError, match=says):
        tiny_run(tiny_data, tmp_path, resume=checkpoint, trainer__epochs=2, **changes)


def test_a_resumed_run_needs_no_pretrained_weights(tiny_data, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    run = tiny_run(tiny_data, tmp_path, trainer__epochs=1, arch__args__weights=str(weights))
    run.train()
    weights.unlink()
    again = tiny_run(tiny_data, tmp_path, run.to_test(), trainer__epochs=2, arch__args__weights=str(weights))
    assert same(run.model.state_dict(), again.model.state_dict())
    with pytest.raises(UserError, match="there is no file"):
        tiny_run(tiny_data, tmp_path, arch__args__weights=str(weights))


def test_classes_of_another_task_are_refused(tiny_data, tmp_path):
    changes = {"data_loader__args__task": 2, "arch__args__label_dim": 3}
    run = tiny_run(tiny_data, tmp_path, trainer__epochs=1, data_loader__args__filtered=False, **changes)
    run.train()
    checkpoint = load_checkpoint(run.config.save_dir / "checkpoint-epoch1.pth")
    checkpoint["classes"] = ["Normal", "Wheeze", "Stridor"]
    torch.save(checkpoint, run.config.save_dir / "checkpoint-epoch1.pth")
    with pytest.raises(UserError, match="knows the classes Normal, Wheeze, Stridor"):
        tiny_run(tiny_data, tmp_path, resume=run.config.save_dir / "checkpoint-epoch1.pth", **changes)


def test_a_cycle_cannot_be_prolonged(tiny_data, tmp_path):
    cycle = {"type": "OneCycleLR", "args": {}}
    run = tiny_run(tiny_data, tmp_path, trainer__epochs=1, lr_scheduler=cycle)
    run.train()
    with pytest.raises(UserError, match=r"lr_scheduler: .* laid out for"):
        tiny_run(tiny_data, tmp_path, resume=run.to_test(), trainer__epochs=2, lr_scheduler=cycle)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"data_loader__args__validation_split": {"folds": 3, "fold": 2}},
        {"data_loader__args__split_by": "random"},
    ],
)
def test_a_resumed_run_keeps_its_patients_on_their_sides(tiny_data, tmp_path, change):
    first = tiny_run(tiny_data, tmp_path, trainer__epochs=1)
    first.train()
    path = first.config.save_dir / "checkpoint-epoch1.pth"
    with pytest.raises(UserError, match="splits patients otherwise"):
        tiny_run(tiny_data, tmp_path, resume=path, **change)


def test_a_resumed_run_keeps_its_data(tiny_data, tmp_path):
    first = tiny_run(tiny_data, tmp_path, trainer__epochs=1)
    first.train()
    path = first.config.save_dir / "checkpoint-epoch1.pth"
    checkpoint = load_checkpoint(path)
    checkpoint["data"]["inter"] = "a test set of then"
    torch.save(checkpoint, path)
    tiny_run(tiny_data, tmp_path, resume=path)
    checkpoint["data"]["train"] = "other recordings"
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="its split train is not that of"):
        tiny_run(tiny_data, tmp_path, resume=path)
