from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_loader.features import methods
from tests.tiny import tiny_run
from trainer.evaluation import evaluate
from trainer.trained import load_trained
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tiny_data, tmp_path_factory):
    """A network for task 2-2, trained a little."""
    changes = {"data_loader__args__task": 2, "data_loader__args__level": 2, "arch__args__label_dim": 5}
    augment = {"time_masks": 3, "time_width": 0.5}
    run = tiny_run(
        tiny_data,
        tmp_path_factory.mktemp("saved"),
        trainer__epochs=3,
        metrics=["score_task2"],
        arch__args__dropout=0.5,
        data_loader__args__augment=augment,
        data_loader__args__balance="oversample",
        **changes,
    )
    run.train()
    return run.to_test()


@pytest.fixture
def trained(checkpoint):
    return load_trained(checkpoint, CPU)


def test_the_validation_figures_of_the_training_come_out_again(checkpoint, trained):
    figures = load_checkpoint(checkpoint)["history"][trained.epoch - 1]
    metrics = evaluate(trained, "valid").metrics
    assert metrics["score"] == pytest.approx(figures["val_score_task2"])


@pytest.mark.parametrize(("split", "count"), [("train", 13), ("inter", 4), ("intra", 6), ("test", 10), (None, 10)])
def test_a_split_is_evaluated_whole_each_item_once(trained, split, count):
    report = evaluate(trained, split)
    n_valid = evaluate(trained, "valid").metrics["n"] if split == "train" else 0
    assert report.metrics["n"] + n_valid == (18 if split == "train" else count)
    assert report.predictions["wav_name"].is_unique
    assert report.metrics["split"] == (split or "test")
    assert ({"inter", "intra"} <= report.metrics.keys()) == (count == 10)


def test_scores_on_the_items_that_the_epoch_was_chosen_on_come_with_a_warning(tiny_data, tmp_path, caplog):
    changes = {"metrics": ["accuracy"], "trainer__epochs": 1}
    for monitor, warned in (("max val_accuracy", True), ("off", False)):
        caplog.clear()
        run = tiny_run(tiny_data, tmp_path / str(warned), trainer__monitor=monitor, **changes)
        run.train()
        evaluate(load_trained(run.to_test(), CPU), "valid")
        assert ("too good" in caplog.text) is warned


def test_evaluating_twice_gives_the_same(trained):
    one, other = evaluate(trained, "test"), evaluate(trained, "test")
    assert one.predictions.equals(other.predictions)
    assert one.metrics == other.metrics


def test_a_report_says_what_it_was_made_with(checkpoint, trained):
    metrics = evaluate(trained).metrics
    assert metrics["checkpoint"] == str(checkpoint)
    assert metrics["epoch"] == trained.epoch
    assert metrics["task"] == "2-2"
    assert "commit" in metrics["environment"]
    assert metrics["config"] == load_checkpoint(checkpoint)["config"]
    assert metrics["data"] == evaluate(trained).metrics["data"]


def without_tests(own_data):
    for table in own_data.glob("task*.csv"):
        rows = table.read_text().splitlines()
        table.write_text("\n".join([rows[0], *(row for row in rows if ",train," in row)]) + "\n")


@pytest.mark.parametrize("split_by", ["patient", "recording"])
def test_a_held_out_part_of_the_training_set_is_scored(tiny_data, own_data, tmp_path, split_by, caplog):
    shares = {"data_loader__args__validation_split": "64/16/20", "data_loader__args__split_by": split_by}
    run = tiny_run(tiny_data, tmp_path / "saved", trainer__epochs=1, **shares)
    run.train()
    loader = run.data_loader
    held_out = loader.dataset.table.iloc[loader.test_indices]
    trained = load_trained(run.to_test(), CPU)
    caplog.clear()
    predictions = evaluate(trained, "held_out").predictions
    assert predictions["event_id"].tolist() == held_out["event_id"].tolist()
    assert "the epoch was chosen on these" not in caplog.text
    # The data has a test set of its own.
    assert evaluate(trained).metrics["n"] == evaluate(trained, "inter+intra").metrics["n"] != len(held_out)
    without_tests(own_data)
    trained = load_trained(run.to_test(), CPU, {"data_dir": str(own_data)})
    for split in ("test", None):
        report = evaluate(trained, split)
        assert report.predictions["event_id"].tolist() == held_out["event_id"].tolist()
        assert report.metrics["split"] == "test"


def test_no_part_was_held_out(trained):
    with pytest.raises(UserError, match=r"--split held_out: the checkpoint was trained without .*64/16/20"):
        evaluate(trained, "held_out")


def test_without_a_test_set_the_validation_is_taken(checkpoint, own_data):
    without_tests(own_data)
    trained = load_trained(checkpoint, CPU, {"data_dir": str(own_data)})
    assert evaluate(trained).metrics["split"] == "valid"
    with pytest.raises(UserError, match="has no items of split test"):
        evaluate(trained, "test")


def test_a_split_that_is_not_there_names_those_that_are(trained):
    with pytest.raises(UserError, match="its splits: inter, intra, train"):
        evaluate(trained, "tset")


def test_a_model_trained_without_validation_has_none(tiny_data, tmp_path):
    run = tiny_run(
        tiny_data, tmp_path, trainer__epochs=1, trainer__monitor="off", data_loader__args__validation_split=0
    )
    run.train()
    with pytest.raises(UserError, match="without validation"):
        evaluate(load_trained(run.to_test(), CPU), "valid")


def test_other_features_than_those_of_the_training_are_refused(checkpoint, own_data):
    path = own_data / "processed_stft" / "meta.json"
    # As if both were of mel, which has parameters.
    path.write_text(json.dumps(json.loads(path.read_text()) | {"method": "mel", "params": {"n_mels": 32}}))
    trained = load_trained(checkpoint, CPU, {"data_dir": str(own_data)})
    spec = replace(trained.spec, method="mel", params=methods["mel"].checked({}, "params"))
    with pytest.raises(UserError, match="was trained on features with params"):
        evaluate(replace(trained, spec=spec), "test")


@pytest.mark.parametrize("split", ["train", "valid", "test", "inter"])
def test_data_that_changed_since_the_training_is_refused(checkpoint, own_data, split):
    trained = load_trained(checkpoint, CPU, {"data_dir": str(own_data)})
    evaluate(trained, split)
    table = own_data / "task2.csv"
    rows = table.read_text().splitlines()
    train = [row for row in rows if ",train," in row]
    table.write_text("\n".join(row for row in rows if row != train[0]) + "\n")
    with pytest.raises(UserError, match="its split train is not that of the training"):
        evaluate(trained, split)


def test_items_that_may_have_been_trained_on_are_not_scored_as_validation(trained):
    # As of a program that splits the same patients otherwise.
    other = replace(trained, split="another")
    with pytest.raises(UserError, match=r"split otherwise than in the training .* some may have been trained on"):
        evaluate(other, "valid")
    assert evaluate(other, "inter").metrics == evaluate(trained, "inter").metrics


def test_the_model_is_that_of_the_checkpoint_in_evaluation_mode(checkpoint, trained):
    state = load_checkpoint(checkpoint)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in trained.model.state_dict().items())
    assert not trained.model.training
    assert trained.classes == ("Normal", "Poor Quality", "CAS", "DAS", "CAS & DAS")
    assert np.isfinite(trained.spec.mean)
