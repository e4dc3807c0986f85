"""A model that is fitted at once goes through the same training, checkpoints and report as every other."""

from __future__ import annotations

import io
import json
import shutil
import signal
import zipfile

import pytest
import torch

from data_loader.extract import extract
from data_loader.features import methods
from data_loader.tables import build_tables
from tests.tiny import run, tiny_config, tiny_run, write_config
from trainer.check import check_config
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.cli import Stopped
from utils.config import ConfigParser
from utils.errors import UserError

ARCH = {"type": "SklearnClassifier", "args": {"label_dim": 2, "estimator": "logistic_regression"}}
FOREST = {"estimator": "random_forest", "params": {"n_estimators": 5}}
CHANGES = {
    "arch": ARCH,
    "optimizer": None,
    "trainer__epochs": 1,
    "trainer__monitor": "max val_accuracy",
    "data_loader__args__input_dir": "processed_summary",
    "data_loader__args__normalize": False,
}


@pytest.fixture(scope="module")
def data_dir(tiny_data, tmp_path_factory):
    """The tiny set with the summary features."""
    folder = tmp_path_factory.mktemp("fitting") / "data"
    shutil.copytree(tiny_data, folder, ignore=shutil.ignore_patterns("processed_*"))
    tables = build_tables(folder)
    extract(folder, methods["summary"], {"n_mfcc": 13}, {1: tables.of(1)}, tables.digests)
    return folder


@pytest.fixture
def trained(data_dir, tmp_path):
    """A run of train.py; its folder."""
    config = tiny_config(data_dir, tmp_path / "saved", **CHANGES | {"trainer__tensorboard": True})
    assert run("train", "-c", write_config(tmp_path / "config.json", config), "--run-id", "a") == 0
    return tmp_path / "saved" / "models" / "tiny" / "a"


def test_a_run_gives_figures_a_log_a_best_checkpoint_and_a_report(trained):
    (figures,) = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert figures.keys() >= {"loss", "accuracy", "val_loss", "val_accuracy", "val_score_task1"}
    assert (trained.parents[2] / "model_best.pth").is_file()
    assert list((trained.parents[2] / "log" / "tiny" / "a" / "valid").glob("events*"))
    assert run("test", "-r", trained / "model_best.pth", "--split", "valid") == 0
    metrics = json.loads((trained / "valid" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(figures["val_accuracy"], abs=1e-6)


def test_a_folder_is_predicted_with_features_computed_on_the_fly(trained, data_dir, tmp_path):
    assert run("test", "-r", trained / "model_best.pth", "--wav", data_dir, "--out", tmp_path / "out.json") == 0
    predictions = json.loads((tmp_path / "out.json").read_text())
    assert len(predictions) == len(list(data_dir.rglob("*.wav")))
    assert set(predictions.values()) <= {"Normal", "Adventitious"}


def test_it_is_fitted_on_the_training_items_alone_each_once(data_dir, tmp_path, monkeypatch):
    trainer = tiny_run(data_dir, tmp_path, **CHANGES)
    seen = {}
    fit = trainer.model.fit
    monkeypatch.setattr(trainer.model, "fit", lambda *given: (seen.update(given=given), fit(*given)))
    trainer.train()
    inputs, target, groups = seen["given"]
    loader = trainer.data_loader
    assert len(inputs) == len(loader.train_indices)
    assert sorted(groups) == sorted(loader.dataset.groups[loader.train_indices])
    assert torch.bincount(target).tolist() == loader.class_counts().tolist()
    assert not set(groups) & set(loader.dataset.groups[loader.valid_indices])


def test_the_seed_of_the_config_decides_what_is_random(data_dir, tmp_path):
    arch = {**ARCH, "args": {**ARCH["args"], **FOREST}}
    outputs = []
    for number, seed in enumerate((1, 1, 2)):
        changes = CHANGES | {"arch": arch, "seed": seed, "data_loader__args__seed": 0}
        trainer = tiny_run(data_dir, tmp_path / str(number), **changes)
        trainer.train()
        outputs.append(trainer.model(torch.linspace(-3, 3, 180) * torch.arange(50)[:, None]))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_run_stopped_before_its_validation_goes_on_with_what_was_fitted(data_dir, tmp_path, monkeypatch):
    whole = tiny_run(data_dir, tmp_path / "whole", **CHANGES)
    whole.train()
    stopped = tiny_run(data_dir, tmp_path / "stopped", **CHANGES)
    fit = stopped.model.fit

    def stop_after(*given):
        fit(*given)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(stopped.model, "fit", stop_after)
    with pytest.raises(Stopped):
        stopped.train()
    (place,) = stopped.config.save_dir.glob("*.pth")
    resumed = tiny_run(data_dir, tmp_path / "stopped", resume=place, **CHANGES)
    monkeypatch.setattr(resumed.model, "fit", lambda *given: pytest.fail("fitted again"))
    resumed.train()
    figures = [{k: v for k, v in each.history[0].items() if k != "samples_per_second"} for each in (whole, resumed)]
    assert figures[0] == figures[1]


def test_a_changed_estimator_in_a_checkpoint_is_refused_in_one_line(trained, capfd):
    path = trained / "model_best.pth"
    checkpoint = load_checkpoint(path)
    data, buffer = checkpoint["state_dict"]["fitted"].numpy().tobytes(), io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(data))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name == "schema.json":
                content = content.replace(b'"f_classif"', b'"system"')
                content = content.replace(b'"sklearn.feature_selection._univariate_selection",\n', b'"os",\n')
            archive.writestr(name, content)
    changed = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    save_checkpoint(path, checkpoint | {"state_dict": {"fitted": changed}})
    capfd.readouterr()
    assert run("test", "-r", path) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path}: ")
    assert "could run code" in line


@pytest.mark.parametrize(
    "changes, subject",
    [
        ({"optimizer": {"type": "Adam", "args": {}}}, "optimizer"),
        ({"trainer__epochs": 2}, "trainer.epochs"),
        ({"lr_scheduler": {"type": "OneCycleLR"}}, "lr_scheduler"),
        ({"arch": {"type": "Tiny", "args": {"label_dim": 2}}}, "optimizer"),
        ({"data_loader__args__input_dir": "processed_stft"}, "arch.args"),
    ],
)
def test_a_config_of_which_a_part_would_do_nothing_is_refused(tiny_data, data_dir, tmp_path, changes, subject):
    check_config(ConfigParser(tiny_config(data_dir, tmp_path, **CHANGES)))
    folder = tiny_data if "data_loader__args__input_dir" in changes else data_dir
    with pytest.raises(UserError) as raised:
        check_config(ConfigParser(tiny_config(folder, tmp_path, **CHANGES | changes)))
    assert raised.value.subject == subject
