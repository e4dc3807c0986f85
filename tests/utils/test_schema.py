from __future__ import annotations

import pytest

from tests.tiny import tiny_config
from utils.config import set_key
from utils.errors import UserError
from utils.schema import check_schema


@pytest.fixture
def config():
    return tiny_config("data", "saved")


def test_a_whole_config_passes(config):
    check_schema(config)


@pytest.mark.parametrize(
    ("key", "value", "subject", "says"),
    [
        ("trainr.epochs", 3, "trainr", "did you mean trainer?"),
        ("trainer.epoch", 3, "trainer.epoch", "did you mean epochs?"),
        ("trainer.early_stopp", 3, "trainer.early_stopp", "did you mean early_stop?"),
        ("arch.arg", {}, "arch.arg", "did you mean args?"),
        ("lr_scheduler", {"type": "StepLR", "arg": {}}, "lr_scheduler.arg", "did you mean args?"),
        ("loss", {"typ": "focal"}, "loss.typ", "did you mean type?"),
        ("loss", {"args": {}}, "loss", "lacks the key type"),
        ("loss", 3, "loss", 'is 3 (expected a name, or an object with "type" and "args")'),
        ("lr_scheduler", "StepLR", "lr_scheduler", 'expected an object with "type" and "args", or null'),
        ("arch", "LightCNN", "arch", 'expected an object with "type" and "args"'),
        ("arch.type", 3, "arch.type", "is 3 (expected a text)"),
        ("trainer.epochs", True, "trainer.epochs", "is true (expected a whole number)"),
        ("trainer.epochs", 5.0, "trainer.epochs", "is 5.0 (expected a whole number)"),
        ("trainer.epochs", "5", "trainer.epochs", 'is "5" (expected a whole number)'),
        ("trainer.epochs", None, "trainer.epochs", "is null (expected a whole number)"),
        ("trainer.epochs", 0, "trainer.epochs", "expected at least 1"),
        ("trainer.save_period", 0, "trainer.save_period", "expected at least 1"),
        ("trainer.keep_last", 0, "trainer.keep_last", "expected at least 1"),
        ("trainer.keep_last", "all", "trainer.keep_last", "expected a whole number of at least 1, or null"),
        ("trainer.grad_clip", 0, "trainer.grad_clip", "expected more than 0"),
        ("trainer.grad_clip", True, "trainer.grad_clip", "expected a number above 0, or null"),
        ("trainer.early_stop", -1, "trainer.early_stop", "expected at least 0"),
        ("trainer.tensorboard", "yes", "trainer.tensorboard", "expected true or false"),
        ("trainer.tensorboard", 1, "trainer.tensorboard", "expected true or false"),
        ("trainer.precision", "fp8", "trainer.precision", "choose from fp32, bf16, fp16, auto"),
        ("trainer.verbosity", 3, "trainer.verbosity", "choose from 0, 1, 2"),
        ("trainer.monitor", "val_loss", "trainer.monitor", 'expected "off", or "min" or "max"'),
        ("trainer.monitor", "minimum val_loss", "trainer.monitor", 'expected "off", or "min" or "max"'),
        ("trainer", [], "trainer", "expected an object"),
        ("n_gpu", True, "n_gpu", "expected a whole number"),
        ("n_gpu", -1, "n_gpu", "expected at least 0"),
        ("seed", 0.5, "seed", "expected a whole number"),
        ("metrics", "accuracy", "metrics", "expected a list"),
        ("metrics", ["accuracy", 3], "metrics.1", "expected a text"),
        ("name", "a/b", "name", "expected the name of a folder"),
        ("name", "..", "name", "expected the name of a folder"),
        ("name", "", "name", "expected the name of a folder"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_right(config, key, value, subject, says):
    set_key(config, key, value)
    with pytest.raises(UserError) as caught:
        check_schema(config)
    assert caught.value.subject == subject
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "arch", "data_loader", "optimizer", "loss", "metrics", "trainer"])
def test_a_missing_section_is_named(config, key):
    del config[key]
    with pytest.raises(UserError, match=f"config: lacks the key {key}"):
        check_schema(config)


def test_the_epochs_are_needed(config):
    del config["trainer"]["epochs"]
    with pytest.raises(UserError, match="trainer: lacks the key epochs"):
        check_schema(config)
