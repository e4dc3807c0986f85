"""Sums of the first two digits: the data, and whole runs of train.py and test.py on it."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from data_loader.digit_sum import DigitSumDataLoader
from tests.tiny import ROOT, run
from utils.checkpoint import load_checkpoint
from utils.config import ConfigParser, read_config
from utils.errors import UserError


def digits_of(loader, indices):
    return [loader.dataset.names[index] for index in indices]


def test_the_class_is_the_sum_of_the_first_two_of_one_hot_digits():
    loader = DigitSumDataLoader(length=7)
    batch = next(iter(loader))
    assert batch.data.shape == (32, 10, 7)
    assert batch.data.sum(1).eq(1).all()
    digits = batch.data.argmax(1)
    assert batch.target.equal(digits[:, 0] + digits[:, 1])
    assert batch.lengths.eq(7).all()
    assert loader.classes == tuple(map(str, range(19)))
    assert loader.input_spec.shape == (10, -1)


def test_each_pair_comes_three_times_in_training_and_once_in_validation_and_test():
    loader, test = DigitSumDataLoader(), DigitSumDataLoader(split="test", validation_split=0)
    train, valid = (digits_of(loader, part) for part in (loader.train_indices, loader.valid_indices))
    tested = digits_of(test, test.train_indices)
    assert (len(train), len(valid), len(tested)) == (300, 100, 100)
    for part, times in ((train, 3), (valid, 1), (tested, 1)):
        assert set(Counter(digits[:2] for digits in part).values()) == {times}
    assert len({*train, *valid, *tested}) == 500
    assert {len(digits) for digits in train + valid + tested} == {5}


def test_the_seed_alone_says_which_sequences_there_are():
    one, same, other = (DigitSumDataLoader(seed=seed) for seed in (0, 0, 1))
    assert one.dataset.names.tolist() == same.dataset.names.tolist()
    assert one.dataset.fingerprint() == same.dataset.fingerprint()
    assert one.dataset.fingerprint()["train"] != other.dataset.fingerprint()["train"]
    # As a test asks for its split: without the validation.
    without = DigitSumDataLoader(split="test", validation_split=0).dataset.fingerprint()
    assert without == {split: one.dataset.fingerprint()[split] for split in ("train", "test")}


def test_sequences_of_several_lengths_are_padded_and_say_how_long_they_are():
    batch = next(iter(DigitSumDataLoader(length=[3, 6, 12])))
    assert batch.data.shape == (32, 10, 12)
    assert set(batch.lengths.tolist()) == {3, 6, 12}
    assert batch.data.sum((1, 2)).equal(batch.lengths.float())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"length": 1}, "length: is 1 (expected 2 to 10000 digits, or a list of lengths)"),
        ({"length": []}, "length: is []"),
        ({"length": [5, 10**6]}, "length: is [5, 1000000]"),
        ({"length": 2}, "length: is 2: there are no 5 different sequences of each pair (take longer ones)"),
        ({"length": 3, "train_variants": 9}, "there are no 11 different sequences"),
        ({"train_variants": 0}, "train_variants: is 0 (expected 1 to 1000)"),
        ({"validation_split": -1}, "validation_split: is -1 (expected 0 to 1000)"),
        ({"split": "inter"}, "split: is 'inter' (expected train or test)"),
    ],
)
def test_what_cannot_be_is_said(args, says):
    with pytest.raises(UserError) as error:
        DigitSumDataLoader(**args)
    assert says in str(error.value)


def train(saved, *settings, net="gru", argv=()):
    sets = [f"trainer.save_dir={saved}", "trainer.tensorboard=false", "trainer.verbosity=0", *settings]
    config = [] if "-r" in argv else ["-c", ROOT / "configs" / f"memory_{net}.json"]
    return run("train", *config, "-d", "cpu", *argv, "--set", *sets)


def newest(saved, name):
    return load_checkpoint(next(saved.rglob(name)))


MIXED = ("data_loader.args.length=[3, 8]", "data_loader.args.batch_size=32")


@pytest.mark.parametrize("net", ["srn", "lstm", "gru"])
def test_training_lowers_the_loss_and_the_test_set_is_scored(tmp_path, net):
    assert (
        train(tmp_path, "data_loader.args.length=[3, 4]", "trainer.epochs=8", "optimizer.args.lr=0.05", net=net) == 0
    )
    history = newest(tmp_path, "checkpoint-epoch8.pth")["history"]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert run("test", "-r", tmp_path / "model_best.pth", "-d", "cpu", "--out-dir", tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["task"], metrics["split"], metrics["n"], metrics["n_pairs"]) == ("digit-sum", "test", 100, 100)
    assert metrics["accuracy"] > 0.15


def test_a_run_goes_on_to_the_same_weights(tmp_path):
    # One cycle has its length from the config: both are of three epochs.
    settings = (*MIXED, "trainer.epochs=3", "trainer.save_period=1", "trainer.keep_last=null")
    assert train(tmp_path / "whole", *settings) == 0
    first = next((tmp_path / "whole").rglob("checkpoint-epoch1.pth"))
    assert train(tmp_path / "rest", argv=("-r", first, "--run_id", "rest")) == 0
    whole, rest = (newest(tmp_path / name, "checkpoint-epoch3.pth")["state_dict"] for name in ("whole", "rest"))
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_other_sequences_than_those_of_the_training_are_refused(tmp_path, capsys):
    assert train(tmp_path, "trainer.epochs=1", "data_loader.args.batch_size=64") == 0
    argv = ("-r", next(tmp_path.rglob("checkpoint-epoch1.pth")))
    assert train(tmp_path, "seed=1", "trainer.epochs=2", argv=argv) == 1
    assert "items or labels changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("arch.args.label_dim=10", "is 10, but task digit-sum has 19 classes (set it to 19: 0, 1, 2"),
        ("arch.args.input_dim=1", "GRU takes input_dim = 1 numbers a step, the items (10, -1) have 10"),
        ("arch.args.hidden_dim=0", "GRU has no state of hidden_dim = 0 numbers"),
        ("data_loader.args.length=1", "error: data_loader.args.length: is 1"),
        ("data_loader.args.length=5.5", "data_loader.args.length: is 5.5"),
        ("data_loader.args.split=test", "names test, a test set, which is never trained"),
        ("data_loader.args.validation_split=0", "trainer.monitor: watches val_accuracy, but there is no validation"),
        ("data_loader.args.data_dir=x", "data_loader.args.data_dir: is unknown"),
    ],
)
def test_a_mistake_in_a_config_is_one_line_and_leaves_no_run(tmp_path, capsys, setting, says):
    assert train(tmp_path, setting) == 1
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("net", ["srn", "lstm", "gru"])
def test_the_configs_of_the_experiment_differ_in_the_net_alone(net):
    config = ConfigParser(read_config(ROOT / "configs" / f"memory_{net}.json"))
    args = config["data_loader"]["args"]
    assert (args["train_variants"], args["validation_split"]) == (3, 1)
    assert config["arch"] == {"type": net.upper(), "args": {"label_dim": 19, "input_dim": 10, "hidden_dim": 32}}
