"""Learning from more than the class of an item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from base.base_model import BaseModel, Detailed
from data_loader.dataset import RespDataset
from model import architectures
from model.loss import CrossEntropy, balanced_weights
from tests.tiny import tiny_config, tiny_run
from tests.trainer.test_mid_epoch import same_end, stop_after
from trainer.check import check_config
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.errors import UserError

FRAMES = 4


@architectures.register()
class TinyFine(BaseModel):
    """Its logits of the classes are made of those of 7 fine ones."""

    details = "fine"

    def __init__(self, label_dim: int) -> None:
        super().__init__()
        self.more = nn.Linear(64, 7)

    def forward(self, x):
        fine = self.more(nn.functional.adaptive_avg_pool2d(x, 8).flatten(1))
        logits = torch.stack([fine[:, 0], fine[:, 1:].logsumexp(1)], 1)
        return Detailed(logits, fine) if self.training else logits


@architectures.register()
class TinyFrames(BaseModel):
    """Beside the classes, 2 kinds of sounds in each of 4 frames."""

    details = "frames"

    def __init__(self, label_dim: int) -> None:
        super().__init__()
        self.logits, self.more = nn.Linear(64, label_dim), nn.Linear(64, FRAMES * 2)

    def forward(self, x):
        pooled = nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
        logits = self.logits(pooled)
        return Detailed(logits, self.more(pooled).unflatten(1, (FRAMES, 2))) if self.training else logits


FINE = {
    "arch": {"type": "TinyFine", "args": {"label_dim": 2}},
    "loss": {"type": "fine_cross_entropy", "args": {"weight": [1, 2, 3, 4, 5, 6, 7]}},
}
HEARD = {
    "arch": {"type": "TinyFrames", "args": {"label_dim": 2}},
    "loss": {"type": "frame_supervised", "args": {"weight": [0.3, 0.7], "frame_weight": 2.0}},
}


@pytest.fixture
def frames(monkeypatch):
    """The data set gives frame targets that depend on the item, some of them not known."""
    gather = RespDataset.__getitems__

    def with_frames(self, indices):
        batch = gather(self, indices)
        if self.details == "fine":
            return batch
        drawn = [np.random.default_rng(index).integers(-1, 2, (FRAMES, 2)) for index in indices]
        return batch._replace(details=torch.tensor(np.array(drawn), dtype=torch.float32))

    monkeypatch.setattr(RespDataset, "__getitems__", with_frames)


CASES = {"fine": FINE | {"data_loader__args__details": "fine"}, "frames": HEARD}


@pytest.mark.parametrize("case", CASES)
def test_accumulated_gradients_are_those_of_one_large_batch(tiny_data, tmp_path, frames, case):
    changes = CASES[case] | {"optimizer": {"type": "SGD", "args": {"lr": 0.5}}, "trainer__epochs": 1}
    large = tiny_run(tiny_data, tmp_path, data_loader__args__batch_size=12, **changes)
    small = tiny_run(tiny_data, tmp_path, data_loader__args__batch_size=4, trainer__accumulate=3, **changes)
    before = large.model.more.weight.clone()
    for trainer in (large, small):
        trainer.train()
    torch.testing.assert_close(dict(small.model.state_dict()), dict(large.model.state_dict()), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(before, large.model.more.weight)


@pytest.mark.parametrize("case", CASES)
def test_a_run_with_all_of_it_goes_on_from_the_midst_of_an_epoch(tiny_data, tmp_path, frames, case):
    changes = CASES[case] | {
        "trainer__ema": 0.99,
        "data_loader__args__augment": {"mixup": 0.5},
        "data_loader__args__balance": "sqrt_weights",
        "data_loader__args__batch_size": 10,
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01, "weight_decay": 0.1}, "no_decay_1d": True},
        "lr_scheduler": {"type": "OneCycleLR"},
    }
    straight = tiny_run(tiny_data, tmp_path / "straight", **changes)
    straight.train()
    first = tiny_run(tiny_data, tmp_path / "parts", **changes)
    stop_after(first, len(first.data_loader) + 2)
    with pytest.raises(Stopped):
        first.train()
    (place,) = first.config.save_dir.glob("*-step*.pth")
    torch.manual_seed(9)
    second = tiny_run(tiny_data, tmp_path / "parts", resume=place, **changes)
    second.train()
    same_end(straight, second)


@pytest.mark.parametrize("case", CASES)
def test_the_figures_of_a_split_are_those_of_the_classes(tiny_data, tmp_path, frames, case):
    trainer = tiny_run(tiny_data, tmp_path, **CASES[case], trainer__epochs=1)
    figures = trainer.train()
    batches = list(trainer.valid_data_loader)
    data, target = torch.cat([b.data for b in batches]), torch.cat([b.target for b in batches])
    with torch.no_grad():
        output = trainer.model.eval()(trainer.frontend.eval()(data))
    plain = CrossEntropy([0.3, 0.7] if case == "frames" else None)
    assert figures["val_loss"] == pytest.approx(float(plain(output, target)), rel=1e-5)


def test_fine_classes_are_weighted_and_drawn_by_their_own_numbers(tiny_data, tmp_path):
    changes = FINE | {"data_loader__args__details": "fine", "data_loader__args__balance": "sqrt_weights"}
    changes["loss"] = {"type": "fine_cross_entropy", "args": {"weight": "balanced"}}
    trainer = tiny_run(tiny_data, tmp_path, **changes)
    loader = trainer.data_loader
    fine = tiny_run(tiny_data, tmp_path, data_loader__args__level=2, arch__args__label_dim=7).data_loader
    counts = np.bincount(fine.dataset.labels[loader.train_indices], minlength=7)
    torch.testing.assert_close(trainer.criterion.weight, torch.tensor(balanced_weights(counts.tolist())))
    labels = fine.dataset.labels[loader.train_indices]
    torch.testing.assert_close(loader.sampler._weights, torch.from_numpy(counts[labels] ** -0.5))


def error_of(tiny_data, tmp_path, **changes):
    with pytest.raises(UserError) as caught:
        check_config(ConfigParser(tiny_config(tiny_data, tmp_path, **changes)))
    return str(caught.value)


def test_loss_model_and_loader_learn_the_same(tiny_data, tmp_path):
    def says(**changes):
        return error_of(tiny_data, tmp_path, **changes)

    loader = "data_loader__args__details"
    assert 'fine_cross_entropy learns the details "fine", but the model Tiny gives no details' in says(
        loss="fine_cross_entropy"
    )
    assert 'cross_entropy learns no details, but the model TinyFine gives the details "fine"' in says(
        arch=FINE["arch"]
    )
    assert "data_loader.args.details: is null, but the loss fine_cross_entropy" in says(**FINE)
    assert "data_loader.args.details: is fine, but the loss cross_entropy learns no details (set it to null" in says(
        **{loader: "fine"}
    )
    few = {"type": "fine_cross_entropy", "args": {"weight": [1, 2]}}
    assert "loss.args.weight: there are 2 weights for 7 classes" in says(**FINE | {"loss": few, loader: "fine"})
    check_config(ConfigParser(tiny_config(tiny_data, tmp_path, **FINE, **{loader: "fine"})))
