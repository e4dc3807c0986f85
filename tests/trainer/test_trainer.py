from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from model.loss import CrossEntropy
from tests.tiny import tiny_run
from trainer.place import Seen
from utils.errors import UserError


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def differences(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


def everything(loader):
    """All items of a loader as one batch."""
    batches = list(loader)
    return torch.cat([b.data for b in batches]), torch.cat([b.target for b in batches])


def test_the_same_config_and_seed_give_the_same_weights(tiny_data, tmp_path):
    changes = {"arch__args__dropout": 0.5, "data_loader__args__augment": {"time_masks": 2}, "trainer__epochs": 1}
    runs = [tiny_run(tiny_data, tmp_path, **changes) for _ in range(2)]
    other = tiny_run(tiny_data, tmp_path, seed=1, **changes)
    for run in (*runs, other):
        run.train()
    assert not differences(weights(runs[0]), weights(runs[1]))
    assert differences(weights(runs[0]), weights(other))


def test_tensorboard_and_checkpoints_do_not_change_the_training(tiny_data, tmp_path):
    changes = {"arch__args__dropout": 0.5, "data_loader__args__augment": {"freq_masks": 1}}
    plain = tiny_run(tiny_data, tmp_path, trainer__save_period=9, trainer__monitor="off", **changes)
    shown = tiny_run(tiny_data, tmp_path, trainer__tensorboard=True, **changes)
    plain.train()
    shown.finish(shown.train())
    assert not differences(weights(plain), weights(shown))
    assert list(shown.config.log_dir.rglob("events*"))


@pytest.mark.parametrize("loss", ["cross_entropy", {"type": "focal", "args": {"weight": [0.3, 0.7]}}])
def test_figures_are_those_of_the_whole_split_not_a_mean_of_batches(tiny_data, tmp_path, loss):
    trainer = tiny_run(tiny_data, tmp_path, loss=loss, data_loader__args__batch_size=7, trainer__epochs=1)
    n_valid = len(trainer.data_loader.valid_indices)
    assert n_valid % 7
    figures = trainer.train()

    data, target = everything(trainer.valid_data_loader)
    trainer.model.eval()
    with torch.no_grad():
        output = trainer.model(trainer.frontend.eval()(data))
    assert len(target) == n_valid
    assert figures["val_loss"] == pytest.approx(float(trainer.criterion(output, target)), rel=1e-5)
    assert figures["val_accuracy"] == pytest.approx(float((output.argmax(1) == target).float().mean()))


def test_training_figures_count_every_item_once(tiny_data, tmp_path):
    trainer = tiny_run(
        tiny_data, tmp_path, data_loader__args__batch_size=9, optimizer__args__lr=0.0, trainer__epochs=1
    )
    figures = trainer.train()
    data, target = everything(trainer.data_loader.evaluation("train"))
    assert len(target) % 9
    with torch.no_grad():
        output = trainer.model(trainer.frontend.eval()(data))
    # With a learning rate of 0, all batches saw the same weights.
    assert figures["loss"] == pytest.approx(float(trainer.criterion(output, target)), rel=1e-5)
    assert figures["accuracy"] == pytest.approx(float((output.argmax(1) == target).float().mean()))


def test_validation_is_neither_augmented_nor_dropped_out_and_training_is(tiny_data, tmp_path):
    augment = {"time_masks": 5, "time_width": 0.9}
    trainer = tiny_run(tiny_data, tmp_path, arch__args__dropout=0.9, data_loader__args__augment=augment)
    modes = []
    trainer.frontend.register_forward_hook(lambda module, args, output: modes.append((module.training, output)))
    trainer.model.dropout.register_forward_hook(lambda module, args, output: modes.append((module.training, None)))
    assert trainer._valid_epoch(1) == trainer._valid_epoch(1)
    assert not any(training for training, _ in modes)

    modes.clear()
    trainer._train_epoch(1)
    assert [training for training, _ in modes] == sorted((t for t, _ in modes), reverse=True)
    assert {training for training, _ in modes} == {True, False}
    assert trainer.model.training
    assert trainer.frontend.training


def test_without_validation_the_training_figures_are_all_there_are(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, data_loader__args__validation_split=0, trainer__monitor="max accuracy")
    best = trainer.train()
    assert best.keys() == {"epoch", "loss", "accuracy", "score_task1", "samples_per_second"}


def test_weights_balanced_are_those_of_the_training_items(tiny_data, tmp_path):
    from sklearn.utils.class_weight import compute_class_weight

    trainer = tiny_run(tiny_data, tmp_path)
    _, target = everything(trainer.data_loader.evaluation("train"))
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=target.numpy())
    assert trainer.criterion.weight.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("weight", [None, [0.2, 0.8], "balanced"])
@pytest.mark.parametrize("size", [4, 5])
def test_accumulated_gradients_are_those_of_one_large_batch(tiny_data, tmp_path, weight, size):
    loss = {"type": "cross_entropy", "args": {"weight": weight}}
    changes = {"loss": loss, "optimizer": {"type": "SGD", "args": {"lr": 0.5}}}
    large = tiny_run(tiny_data, tmp_path, data_loader__args__batch_size=3 * size, **changes)
    small = tiny_run(tiny_data, tmp_path, data_loader__args__batch_size=size, trainer__accumulate=3, **changes)
    # The last step of the epoch has fewer batches, or a smaller one.
    assert len(small.data_loader.train_indices) % (3 * size)
    for trainer in (large, small):
        trainer.train()
    assert small.global_step == large.global_step == len(large.data_loader) * large.epochs
    for name, value in weights(large).items():
        torch.testing.assert_close(weights(small)[name], value, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_of_weightless_classes_do_no_harm(tiny_data, tmp_path):
    loss = {"type": "cross_entropy", "args": {"weight": [0, 1]}}
    trainer = tiny_run(tiny_data, tmp_path, loss=loss, data_loader__args__batch_size=1, trainer__accumulate=2)
    trainer.train()
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_gradients_are_clipped_to_the_norm(tiny_data, tmp_path, monkeypatch, precision):
    changes = {"trainer__precision": precision, "optimizer": {"type": "SGD", "args": {"lr": 1.0}}}
    trainer = tiny_run(tiny_data, tmp_path, trainer__grad_clip=0.01, **changes)
    before = weights(trainer)
    seen = []
    step = trainer.optimizer.step

    def spy(*args, **kwargs):
        seen.append(math.sqrt(sum(p.grad.square().sum().item() for p in trainer.model.parameters())))
        return step(*args, **kwargs)

    monkeypatch.setattr(trainer.optimizer, "step", spy)
    trainer._train_epoch(1)
    assert max(seen) <= 0.01 * (1 + 1e-4)
    assert max(seen) == pytest.approx(0.01, rel=1e-3)
    assert differences(before, weights(trainer))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_nearly_as_single_precision(tiny_data, tmp_path, precision):
    runs = {p: tiny_run(tiny_data, tmp_path, trainer__precision=p) for p in ("fp32", precision)}
    seen = set()
    runs[precision].model.linear.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    losses = {p: run.train()["val_loss"] for p, run in runs.items()}
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.02)
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert all(value.dtype == torch.float32 for value in weights(runs[precision]).values())


def test_a_step_that_overflows_in_fp16_is_left_out_and_is_none_for_the_schedule(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, trainer__precision="fp16", lr_scheduler={"type": "OneCycleLR", "args": {}})
    before, rate = weights(trainer), trainer.optimizer.param_groups[0]["lr"]
    trainer.stepper.scaler.scale(trainer.model.linear.weight.sum() * float("inf")).backward()
    batch = Seen(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.tensor(1.0))
    trainer._step(1, 1, [batch])
    assert not differences(before, weights(trainer))
    assert trainer.optimizer.param_groups[0]["lr"] == rate


def test_learning_rates_of_the_schedule_are_used(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, lr_scheduler={"type": "StepLR", "args": {"step_size": 1, "gamma": 0.1}})
    trainer.train()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.1**2)


def test_a_validation_loss_that_is_not_finite_is_said(tiny_data, tmp_path, caplog):
    trainer = tiny_run(tiny_data, tmp_path, trainer__epochs=1)
    trainer.frontend.register_forward_hook(lambda module, args, output: output if module.training else output / 0)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "val_loss is not finite: the training diverges" in caplog.text


def test_the_end_names_the_checkpoint_to_test_and_the_log_to_look_at(tiny_data, tmp_path, caplog):
    trainer = tiny_run(tiny_data, tmp_path, trainer__monitor="off", trainer__tensorboard=True, trainer__epochs=1)
    with caplog.at_level(logging.INFO):
        trainer.finish(trainer.train())
    assert f"python test.py -r {trainer.config.save_dir / 'checkpoint-epoch1.pth'}" in caplog.text
    assert f"tensorboard --logdir {tmp_path / 'log'}" in caplog.text


def test_a_loss_of_its_own_needs_no_weights(tiny_data, tmp_path):
    trainer = tiny_run(tiny_data, tmp_path, trainer__accumulate=2)

    class Own(nn.Module):
        def forward(self, output, target):
            return CrossEntropy()(output, target)

    trainer.criterion = Own()
    assert math.isfinite(trainer.train()["val_loss"])


def test_a_lone_item_that_batch_normalisation_cannot_take_is_one_line(tiny_data, tmp_path):
    n_items = len(tiny_run(tiny_data, tmp_path).data_loader.train_indices)
    changes = {"data_loader__args__batch_size": n_items - 1, "trainer__epochs": 1}
    with pytest.raises(UserError, match="leaves one item alone in a batch"):
        tiny_run(tiny_data, tmp_path, arch__args__norm=True, **changes).train()
    tiny_run(tiny_data, tmp_path, **changes).train()


@pytest.mark.parametrize("filtered", [False, True])
def test_whether_the_data_is_filtered_reaches_what_splices_it(tiny_data, tmp_path, filtered):
    data = {"task": 2, "level": 2, "filtered": filtered}
    changes = {f"data_loader__args__{key}": value for key, value in data.items()}
    changes |= {"arch__args__label_dim": 5, "metrics": ["accuracy"]}
    assert tiny_run(tiny_data, tmp_path, **changes).splice.filtered is filtered
