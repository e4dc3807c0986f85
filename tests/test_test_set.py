"""The official test set can be scored, never trained, validated or chosen on: whatever a config or a table says."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch

from tests.tiny import run, tiny_config, tiny_run, write_config


@pytest.fixture
def make(tmp_path, own_data):
    """Writes a config for the own data; gives train.py's arguments."""

    def make(**changes):
        return "-c", write_config(tmp_path / "config.json", tiny_config(own_data, tmp_path / "saved", **changes))

    return make


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def refused(argv, tmp_path, capsys):
    """The one line that train.py ends with; nothing is trained or written."""
    assert run("train", *argv) == 1
    assert not list((tmp_path / "saved").rglob("*.pth"))
    line = last_line(capsys)
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("split", ["inter", "intra", "inter+intra", "train+inter", "test", "train+test2023"])
@pytest.mark.parametrize("changes", [{}, {"data_loader__args__validation_split": 0, "trainer__monitor": "min loss"}])
def test_a_config_that_would_load_test_recordings_is_refused(make, tmp_path, capsys, split, changes):
    line = refused(make(data_loader__args__split=split, **changes), tmp_path, capsys)
    name = next(name for name in split.split("+") if name != "train")
    assert line.startswith(f"error: data_loader.args.split: names {name}, a test set")
    assert f"test.py --split {name}" in line


@pytest.mark.parametrize("split_by", ["patient", "random"])
@pytest.mark.parametrize("spec", [0.3, 10, {"folds": 3, "fold": 1}])
def test_a_run_sees_no_test_recording_on_either_side(own_data, tmp_path, split_by, spec):
    args = {"data_loader__args__validation_split": spec, "data_loader__args__split_by": split_by}
    trainer = tiny_run(own_data, tmp_path / "saved", **args)
    loader = trainer.data_loader
    seen = torch.cat([batch.index for part in (loader, trainer.valid_data_loader) for batch in part])
    table = pd.read_csv(own_data / "task1.csv")
    assert set(loader.dataset.table["wav_name"].iloc[seen.numpy()]) == set(
        table["wav_name"][table["split"] == "train"]
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trainer__monitor", "max test_accuracy", "which is not measured"),
        ("trainer__monitor", "max inter_score", "which is not measured"),
        ("valid_data_loader", {"type": "RespDataLoader", "args": {"split": "inter"}}, "valid_data_loader: is unknown"),
        ("data_loader__args__valid_split", "inter", "data_loader.args.valid_split: is unknown"),
        ("data_loader__args__validation_split", "inter", "three shares are written"),
        ("trainer__early_stop", "inter", "trainer.early_stop"),
    ],
)
def test_there_is_no_other_way_to_look_at_a_test_set(make, tmp_path, capsys, key, value, says):
    assert says in refused(make(**{key: value}), tmp_path, capsys)


def test_test_recordings_that_the_table_calls_training_are_refused(make, own_data, tmp_path, capsys):
    path = own_data / "task1.csv"
    path.write_text(path.read_text().replace(",inter,", ",train,").replace(",intra,", ",train,"))
    line = refused(make(), tmp_path, capsys)
    assert f"{path}: has BioCAS2022/test2022_wav/" in line
    assert "its folder is of a test set" in line


def test_a_recording_of_two_splits_is_refused(make, own_data, tmp_path, capsys):
    path = own_data / "task1.csv"
    lines = path.read_text().splitlines()
    tested = next(line for line in lines if ",inter," in line)
    copied = tested.replace(",inter,", ",train,").replace("test2022_wav", "train2022_wav")
    path.write_text("\n".join([*lines, copied]) + "\n")
    assert f"has {tested.split('.wav')[0]} in the splits inter, train" in refused(make(), tmp_path, capsys)


def test_a_test_recording_that_lies_in_the_training_folder_too_stays_a_test_recording(own_data, tmp_path):
    release = own_data / "BioCAS2022"
    wav = sorted((release / "test2022_wav").iterdir())[0]
    shutil.copy(wav, release / "train2022_wav")
    label = next((release / "test2022_json").rglob(f"{wav.stem}.json"))
    shutil.copy(label, release / "train2022_json")
    assert run("preprocess", "--data-dir", own_data) == 0
    table = pd.read_csv(own_data / "task2.csv")
    assert set(table["split"][table["wav_name"] == wav.name]) <= {"inter", "intra"}
    assert (table["wav_name"] == wav.name).sum() == 1


def test_a_checkpoint_that_was_chosen_on_test_recordings_is_not_scored(own_data, tmp_path, capsys):
    # As a program would make it that goes round check_config.
    trainer = tiny_run(own_data, tmp_path / "saved", data_loader__args__split="inter", trainer__epochs=1)
    trainer.train()
    assert run("test", "-r", trainer.to_test(), "--split", "inter") == 1
    line = last_line(capsys)
    assert line.startswith(
        f"error: {trainer.to_test()}: its config cannot be used: data_loader.args.split names inter"
    )


def test_a_class_that_a_side_lacks_is_said_once_at_the_start(make, own_data, capsys):
    path = own_data / "task1.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[table["label_12"] == "Stridor", ["label_11", "label_12"]] = ["Adventitious", "Wheeze"]
    train = table["split"] == "train"
    rare = table.index[train & (table["patient_id"] == table["patient_id"][train].iloc[0])][:2]
    table.loc[rare, ["label_11", "label_12"]] = ["Adventitious", "Stridor"]
    table.to_csv(path, index=False)
    args = make(data_loader__args__level=2, arch__args__label_dim=7, trainer__epochs=2)
    assert run("train", *args) == 0
    text = capsys.readouterr().err
    said = [line for line in text.splitlines() if "no Stridor" in line]
    assert len(said) == 1
    assert "(2 items of 1 patient)" in said[0]
    assert text.index("no Stridor") < text.index("epoch")
