from __future__ import annotations

import pytest
from torch import nn

import model.weights
from tests.tiny import tiny_config
from trainer.building import make_criterion, make_loader, make_model
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
