"""Rebuilding the model of a checkpoint that does not fit itself."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_run
from trainer.trained import load_trained
from utils.checkpoint import load_checkpoint
from utils.config import set_key
from utils.errors import UserError


@pytest.fixture(scope="module")
def content(tiny_data, tmp_path_factory):
    run = tiny_run(tiny_data, tmp_path_factory.mktemp("saved"), trainer__epochs=1)
    run.train()
    return run.to_test()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("config.arch.args.label_dim", 10**12, "label_dim is 1000000000000, for 2 classes"),
        ("config.arch.args.dropout", "x", "arch.args.dropout is 'x' (expected a number)"),
        ("config.arch.args.dropout", 7.0, "its config describes no network"),
        ("config.arch.type", "os.system", "arch.type there is no architecture 'os.system'"),
        ("config.trainer.epochs", None, "trainer.epochs is null"),
        ("config.data_loader", 3, "data_loader is 3"),
        ("classes", ["a"], "label_dim is 2, for 1 classes"),
        ("input.method", "os", "input.method there is no feature method 'os'"),
        ("input.std", 0.0, "the deviation 0.0"),
        ("input.shape", [1, 10**9, 10**9], "the items are (1, 1000000000, 1000000000)"),
        ("input.weights", "a digest", "input.weights is 'a digest', and the features are of no network"),
        ("input.colour", 1, "input.colour is unknown"),
    ],
)
def test_a_checkpoint_that_does_not_fit_itself_names_the_file_and_the_key(content, tmp_path, key, value, says):
    checkpoint = load_checkpoint(content)
    set_key(checkpoint, key, value)
    path = tmp_path / "c.pth"
    torch.save(checkpoint, path)
    with pytest.raises(UserError) as caught:
        load_trained(path, torch.device("cpu"))
    assert caught.value.subject == str(path)
    assert says in str(caught.value)


def test_a_config_that_describes_a_giant_takes_no_memory_for_it(content, tmp_path, monkeypatch):
    checkpoint = load_checkpoint(content)
    set_key(checkpoint, "config.arch.args.label_dim", 10**13)
    # As if the classes were so many.
    monkeypatch.setattr("trainer.trained._check_arch", lambda *_: None)
    path = tmp_path / "c.pth"
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"linear\.weight is \(2, 64\), not \(10000000000000, 64\)"):
        load_trained(path, torch.device("cpu"))
