"""Any labelled audio through the same train.py and test.py."""

from __future__ import annotations

import csv
import json

import pytest
import soundfile
import torch

from data_loader.frontend import InputSpec
from tests import sounds
from tests.tiny import ROOT, run
from utils.checkpoint import load_checkpoint

URBAN = ROOT / "configs" / "urbansound8k_audioclassifier.json"
QUICK = ["data_loader.args.num_workers=0", "data_loader.args.batch_size=10", "arch.args.label_dim=3"]


@pytest.fixture(scope="module")
def urban(tmp_path_factory):
    """The published config, trained on a tiny UrbanSound8K: its data and the folder of its runs."""
    data, saved = (tmp_path_factory.mktemp(name) for name in ("urban", "saved"))
    sounds.write_urbansound8k(data, folds=5)
    own = ['data_loader.args.validation_split={"column": "fold", "value": 4}', "data_loader.args.test_fold=5"]
    where = ["--data-dir", data, "--set", f"trainer.save_dir={saved}", "trainer.epochs=2", *QUICK, *own]
    assert run("train", "-c", URBAN, "-d", "cpu", "--run_id", "a", *where) == 0
    return data, saved


def test_the_published_config_makes_the_published_input(urban):
    checkpoint = load_checkpoint(urban[1] / "model_best.pth")
    spec = InputSpec.from_dict(checkpoint["input"])
    assert (spec.shape, spec.rate, spec.channels, spec.duration) == ((2, 64, 344), 44100, 2, 4.0)
    assert checkpoint["classes"] == list(sounds.URBAN_CLASSES)
    assert checkpoint["schedule"]["name"] == "OneCycleLR"
    # 9 training items in one batch an epoch: two steps of the whole cycle.
    assert checkpoint["schedule"]["state"]["total_steps"] == 2
    assert list((urban[1] / "log").rglob("events*"))


@pytest.mark.parametrize(("split", "fold"), [(None, 5), ("valid", 4)])
def test_a_split_is_scored_by_accuracy_with_intervals_over_recordings(urban, tmp_path, capsys, split, fold):
    saved = urban[1]
    named = [] if split is None else ["--split", split]
    assert run("test", "-r", saved / "model_best.pth", "-d", "cpu", "--out-dir", tmp_path, *named) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["task"], metrics["split"], metrics["n"]) == ("urbansound8k", split or "test", 3)
    assert metrics["n_recordings"] == 3
    assert set(metrics["ci95"]) == {"accuracy"}
    assert metrics["accuracy"] == pytest.approx(sum(metrics["confusion_matrix"][i][i] for i in range(3)) / 3)
    assert list(metrics["per_class"]) == list(sounds.URBAN_CLASSES)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["wav_name"].split("/")[1] for row in rows} == {f"fold{fold}"}
    assert {row["group"] for row in rows} == {f"100{fold}0{number}" for number in range(3)}
    assert "3 items of 3 recordings" in capsys.readouterr().out


def test_a_folder_gets_the_predictions_of_the_test(urban, tmp_path):
    data, saved = urban
    checkpoint = saved / "model_best.pth"
    assert run("test", "-r", checkpoint, "-d", "cpu", "--out-dir", tmp_path / "report") == 0
    assert run("test", "-r", checkpoint, "-d", "cpu", "--wav", data, "--out", tmp_path / "p.json") == 0
    predicted = json.loads((tmp_path / "p.json").read_text())
    with (tmp_path / "report" / "predictions.csv").open(newline="") as file:
        scored = {row["wav_name"]: row["prediction"] for row in csv.DictReader(file)}
    assert len(predicted) == 15
    assert scored == {name: predicted[name] for name in scored}


def test_a_run_goes_on(urban, tmp_path):
    data, saved = urban
    first = saved / "models" / URBAN.stem / "a" / "checkpoint-epoch1.pth"
    where = ["--run_id", "b", "--data-dir", data, "--set", f"trainer.save_dir={tmp_path}"]
    assert run("train", "-r", first, "-d", "cpu", *where) == 0
    whole, resumed = (
        load_checkpoint(root / "models" / URBAN.stem / name / "checkpoint-epoch2.pth")["state_dict"]
        for root, name in ((saved, "a"), (tmp_path, "b"))
    )
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name], msg=name)


def test_data_that_changed_since_the_training_is_refused(urban, tmp_path, capsys):
    saved = urban[1]
    sounds.write_urbansound8k(tmp_path, folds=5)
    metadata = tmp_path / "metadata" / "UrbanSound8K.csv"
    metadata.write_text(metadata.read_text().replace("1,0,air_conditioner", "1,0,siren", 1))
    where = ["--data-dir", tmp_path, "--out-dir", tmp_path / "out"]
    assert run("test", "-r", saved / "model_best.pth", "-d", "cpu", *where) == 1
    assert "its split train is not that of the training" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("arch.args.label_dim=10", "is 10, but task urbansound8k has 3 classes (set it to 3: air_conditioner"),
        ("arch.args.indim=1", "arch.args: AudioClassifier takes (indim, bands, frames) with indim 1"),
        ("data_loader.args.adapter=urbansound", "there is no adapter 'urbansound' (did you mean urbansound8k?)"),
        ("data_loader.args.data_dir=nowhere", "error: nowhere/metadata/UrbanSound8K.csv: there is no such file"),
        ("data_loader.args.split=test", "names test, a test set, which is never trained"),
        (
            'data_loader.args.validation_split={"column": "split", "value": "test"}',
            "names test, a test set, which is never trained, validated or chosen on",
        ),
        ('data_loader.args.validation_split={"column": "fold", "value": 77}', "no item has fold 77"),
        ("data_loader.args.channels=0", "data_loader.args.channels: is 0"),
        ("data_loader.args.duration=null", "data_loader.args.augment.place: cuts and pads to a duration"),
        ("data_loader.args.augment.place=1", "data_loader.args.augment.place: is 1"),
        ("data_loader.args.task=1", "data_loader.args.task: is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(urban, tmp_path, capsys, setting, says):
    where = ["--data-dir", urban[0], "--set", f"trainer.save_dir={tmp_path}", *QUICK, setting]
    assert run("train", "-c", URBAN, "-d", "cpu", *where) == 1
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_icbhi_is_scored_by_its_own_definition_over_patients(tmp_path, capsys):
    sounds.write_icbhi(tmp_path / "data")
    sets = ["data_loader.args.num_workers=0", "data_loader.args.adapter=icbhi", "arch.args.label_dim=4"]
    sets += ["data_loader.args.rate=4000", "data_loader.args.channels=1", "arch.args.indim=1"]
    sets += ['data_loader.args.frontend={"method": "mel", "n_mels": 32, "duration": 1.0}']
    sets += ["data_loader.args.duration=1.0", "data_loader.args.validation_split=0.3", "trainer.epochs=1"]
    sets += ['metrics=["accuracy", "icbhi_score"]', "trainer.monitor=max val_icbhi_score"]
    where = ["--data-dir", tmp_path / "data", "--set", f"trainer.save_dir={tmp_path}", *sets]
    assert run("train", "-c", URBAN, "-d", "cpu", *where) == 0
    assert run("test", "-r", tmp_path / "model_best.pth", "-d", "cpu", "--out-dir", tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["classes"] == ["normal", "crackle", "wheeze", "both"]
    assert (metrics["split"], metrics["n"], metrics["n_patients"]) == ("test", 5, 2)
    counts = metrics["confusion_matrix"]
    specificity = counts[0][0] / sum(counts[0])
    sensitivity = sum(counts[i][i] for i in (1, 2, 3)) / sum(sum(row) for row in counts[1:])
    found = [metrics[name] for name in ("specificity", "sensitivity", "score")]
    assert found == pytest.approx([specificity, sensitivity, (specificity + sensitivity) / 2])
    assert set(metrics["ci95"]) == {"accuracy", "specificity", "sensitivity", "score"}
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient_id"], row["start"], row["end"]) for row in rows[:2]] == [
        ("156", "0.1", "0.8"),
        ("156", "0.8", "1.5"),
    ]
    assert "5 items of 2 patients" in capsys.readouterr().out


def test_fma_clips_are_predicted_from_their_own_format(tmp_path):
    sounds.write_fma(tmp_path / "data")
    sets = [*QUICK, "data_loader.args.adapter=fma", "trainer.epochs=1", "data_loader.args.rate=22050"]
    sets += ['data_loader.args.validation_split={"column": "split", "value": "valid"}']
    where = ["--data-dir", tmp_path / "data", "--set", f"trainer.save_dir={tmp_path}", *sets]
    assert run("train", "-c", URBAN, "-d", "cpu", *where) == 0
    checkpoint = tmp_path / "model_best.pth"
    assert run("test", "-r", checkpoint, "-d", "cpu", "--wav", tmp_path / "data", "--out", tmp_path / "p.json") == 0
    predicted = json.loads((tmp_path / "p.json").read_text())
    assert len(predicted) == 6
    assert soundfile.info(tmp_path / "data" / min(predicted)).format == "MP3"
