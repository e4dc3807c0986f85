"""Each adapter on a tiny set in exactly the published format."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_loader.adapters import adapters, register_adapter
from data_loader.audio_dataset import AudioDataset
from data_loader.audio_table import read_audio_table
from tests import sounds
from utils.errors import UserError

SPLITS = ("train", "valid", "test")


def rows(table, *columns):
    return [tuple(row) for row in table[list(columns)].itertuples(index=False)]


def test_the_adapters_are_those_of_the_readme():
    assert {"csv", "folders", "urbansound8k", "esc50", "fma", "icbhi"} <= set(adapters)


def test_a_csv_names_its_columns(tmp_path):
    sounds.tone(tmp_path / "wavs" / "a.wav", 2.0)
    sounds.tone(tmp_path / "wavs" / "b.flac", 1.0)
    content = [
        ("a.wav", "NA", 1, "p1", 0.5, 1.25),
        ("a.wav", "wren", 1, "p1", "", ""),
        ("b.flac", "wren", 2, "", 0, ""),
    ]
    sounds.table(tmp_path / "birds.csv", ["file", "species", "round", "site", "from", "to"], content)
    named = {"path": "file", "label": "species", "fold": "round", "group": "site", "start": "from", "end": "to"}
    table = read_audio_table(tmp_path, {"name": "csv", "file": "birds.csv", "audio_dir": "wavs", **named})
    # A label that pandas takes for no value is one; a file without a group is its own.
    expected = [("wavs/a.wav", "NA", "1", "p1", 0.5), ("wavs/a.wav", "wren", "1", "p1", 0.0)]
    expected += [("wavs/b.flac", "wren", "2", "wavs/b.flac", 0.0)]
    assert rows(table, "path", "label", "fold", "group", "start") == expected
    assert table["end"].iloc[0] == 1.25
    assert table["end"].isna().tolist() == [False, True, True]
    assert set(table["split"]) == {"train"}


def test_a_folder_a_class(tmp_path):
    for name in ("cat/1.wav", "cat/more/2.FLAC", "dog/1.ogg", "dog/.hidden.wav", "notes.txt"):
        path = sounds.tone(tmp_path / "x.wav") if name.endswith("txt") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "x.wav").unlink()
    table = read_audio_table(tmp_path, "folders")
    expected = [("cat/1.wav", "cat", "train"), ("cat/more/2.FLAC", "cat", "train"), ("dog/1.ogg", "dog", "train")]
    assert rows(table, "path", "label", "split") == expected


def test_a_folder_a_split_of_a_folder_a_class(tmp_path):
    for name in ("train/cat/1.wav", "train/dog/1.wav", "val/cat/2.wav", "test/dog/3.wav"):
        sounds.tone(tmp_path / name)
    expected = [
        ("3.wav", "dog", "test"),
        ("1.wav", "cat", "train"),
        ("1.wav", "dog", "train"),
        ("2.wav", "cat", "valid"),
    ]
    found = read_audio_table(tmp_path, "folders")
    assert rows(found.assign(path=found["path"].str.rsplit("/").str[-1]), "path", "label", "split") == expected


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("training", "validation", "testing"),
        ("Train", "Val", "TEST"),
        ("TRAIN", "dev", "Test"),
    ],
)
def test_folders_of_splits_are_known_in_any_spelling(tmp_path, names):
    for name in names:
        for label in ("cat", "dog"):
            sounds.tone(tmp_path / name / label / "0.wav")
    # Neither holds sounds of the set.
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").touch()
    sounds.tone(tmp_path / ".Trash-1000" / "files" / "0.wav")
    table = read_audio_table(tmp_path, "folders")
    expected = [
        (f"{name}/{label}/0.wav", label, split)
        for name, split in zip(names, SPLITS, strict=True)
        for label in ("cat", "dog")
    ]
    assert sorted(rows(table, "path", "label", "split")) == sorted(expected)


@pytest.mark.parametrize(
    ("names", "splits", "others"),
    [
        (("train", "test", "docs"), "test, train", "docs"),
        (("cat", "Training", "dog", "eval"), "Training", "cat, dog, eval"),
    ],
)
def test_folders_of_splits_beside_others_are_refused(tmp_path, names, splits, others):
    for name in names:
        sounds.tone(tmp_path / name / "cat" / "0.wav")
    with pytest.raises(UserError, match=f"holds folders of splits .{splits}. and others .{others}."):
        read_audio_table(tmp_path, "folders")


def test_a_class_may_be_a_link_and_a_hidden_folder_is_none(tmp_path):
    for name in ("set/cat/0.wav", "set/.Trash-1000/files/0.wav", "elsewhere/1.wav"):
        sounds.tone(tmp_path / name)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    table = read_audio_table(tmp_path / "set", "folders")
    assert rows(table, "path", "label") == [("cat/0.wav", "cat"), ("dog/1.wav", "dog")]


def csv_table(folder, header, content, **named):
    """What is read of a CSV with these columns, each under its own name."""
    for name in {row[0].strip() for row in content}:
        sounds.tone(folder / name, 0.1)
    sounds.table(folder / "metadata.csv", header, content)
    columns = {column: column for column in header if column not in ("path", "label")}
    return read_audio_table(folder, {"name": "csv", **columns, **named})


def test_blanks_around_a_cell_are_no_part_of_it(tmp_path):
    content = [
        ("a.wav ", "cat ", " train", " 7", "1 "),
        (" b.wav", "cat", "test ", "7", " 1"),
        ("c.wav", "\tdog", "", " ", "2"),
    ]
    table = csv_table(tmp_path, ["path", "label", "split", "group", "fold"], content)
    assert rows(table, "path", "label", "split", "group", "fold") == [
        ("a.wav", "cat", "train", "7", "1"),
        ("b.wav", "cat", "test", "7", "1"),
        # A file without a group is its own.
        ("c.wav", "dog", "train", "c.wav", "2"),
    ]


def test_blanks_around_what_an_adapter_of_ones_own_gives_are_left_out_but_not_those_of_a_file(tmp_path):
    @register_adapter("blanks")
    def blanks(data_dir):
        return pd.DataFrame(
            {"path": [" a.wav"], "label": ["cat "], "group": [" 7"], "split": ["Test "], "site": ["x "]}
        )

    sounds.tone(tmp_path / " a.wav")
    table = read_audio_table(tmp_path, "blanks")
    assert rows(table, "path", "label", "group", "split", "site") == [(" a.wav", "cat", "7", "test", "x")]


def test_an_item_without_a_split_is_for_training(tmp_path):
    content = [(f"{number}.wav", "cat", split) for number, split in enumerate(["test", "", " ", "train"])]
    table = csv_table(tmp_path, ["path", "label", "split"], content)
    assert table["split"].tolist() == ["test", "train", "train", "train"]


def test_a_split_is_known_in_any_spelling_and_a_test_set_always(tmp_path):
    written = [
        "Train",
        "TRAINING",
        "Valid",
        "Val",
        "Dev",
        "Validation",
        "Test",
        "TESTING",
        "Test2023",
        "Inter",
        "Wild",
    ]
    content = [(f"{number}.wav", "cat", split) for number, split in enumerate(written)]
    table = csv_table(tmp_path, ["path", "label", "split"], content)
    expected = ["train"] * 2 + ["valid"] * 4 + ["test"] * 2 + ["test2023", "inter"]
    # What is no split that anyone knows keeps its name.
    assert table["split"].tolist() == [*expected, "Wild"]


def test_spellings_of_one_path_are_one_file(tmp_path):
    (tmp_path / "b").mkdir()
    sounds.tone(tmp_path / "a.wav", 0.1)
    spellings = ["a.wav", "./a.wav", "b/../a.wav", ".//a.wav"]
    table = csv_table(tmp_path, ["path", "label"], [(path, label) for path in spellings for label in ("cat", "dog")])
    for column in ("path", "wav_name", "group"):
        assert set(table[column]) == {"a.wav"}


def test_urbansound8k(tmp_path):
    table = read_audio_table(sounds.write_urbansound8k(tmp_path), "urbansound8k", test_fold=10)
    assert len(table) == 30
    first = table.iloc[0]
    assert (first["path"], first["label"], first["fold"], first["group"]) == (
        *("audio/fold1/100100-0-0-1.wav", "air_conditioner", "1"),
        "100100",
    )
    # The published start and end are of the recording that the slice was cut from.
    assert (table["start"] == 0).all()
    assert table["end"].isna().all()
    assert rows(table[table["fold"] == "10"], "split") == [("test",)] * 3
    assert set(table["split"][table["fold"] != "10"]) == {"train"}


def test_esc50_and_esc10(tmp_path):
    table = read_audio_table(sounds.write_esc50(tmp_path), "esc50")
    assert len(table) == 30
    assert sorted(set(table["fold"])) == ["1", "2", "3", "4", "5"]
    # The takes of one recording are one group.
    assert table.groupby("group").size().tolist() == [2] * 15
    assert set(read_audio_table(tmp_path, {"name": "esc50", "esc10": True})["label"]) == {"dog", "rooster"}


@pytest.mark.parametrize(
    "text",
    [
        "path,label,group\na.wav,cat,7,\nb.wav,dog,8,\n",
        "path,label,group,\na.wav,cat,7,\nb.wav,dog,8,\n",
        "path , label, group\na.wav, cat, 7\nb.wav, dog, 8\n",
    ],
)
def test_separators_at_the_end_of_rows_and_blanks_in_the_header_shift_no_cell(tmp_path, text):
    for name in ("a.wav", "b.wav"):
        sounds.tone(tmp_path / name, 0.1)
    (tmp_path / "metadata.csv").write_text(text)
    table = read_audio_table(tmp_path, {"name": "csv", "group": "group"})
    assert rows(table, "path", "label", "group") == [("a.wav", "cat", "7"), ("b.wav", "dog", "8")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # pandas takes the label for the path then.
        (b"label,path\nwheeze, loud,a.wav\nwheeze, soft,a.wav\n", "has rows of more cells than its header"),
        (b"path;label\na.wav;x\n", r"lacks the column path .its columns: path;label; is ',' between them\?"),
        ("path,label\na.wav,gerät\n".encode("latin-1"), "not a readable table: .* .save it as UTF-8"),
    ],
)
def test_a_csv_written_otherwise_is_one_line_that_says_what_to_do(tmp_path, content, says):
    sounds.tone(tmp_path / "a.wav", 0.1)
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_audio_table(tmp_path, "csv")


def test_data_of_one_class_names_the_folder_and_not_a_key_that_nobody_set(tmp_path):
    for name in ("above/cat/1.wav", "above/dog/1.wav"):
        sounds.tone(tmp_path / name, 0.1)
    with pytest.raises(UserError, match=r"data_dir: holds sounds of one class only: above .is it the right folder"):
        AudioDataset(tmp_path, "folders")


def test_fma_has_its_own_split_and_leaves_out_what_holds_no_audio_or_no_genre(tmp_path):
    table = read_audio_table(sounds.write_fma(tmp_path), "fma")
    expected = [
        ("fma_small/000/000002.mp3", "Hip-Hop", "train", "1"),
        ("fma_small/000/000005.mp3", "Hip-Hop", "train", "1"),
        ("fma_small/000/000010.mp3", "Pop", "train", "6"),
        ("fma_small/000/000140.mp3", "Pop", "valid", "54"),
        ("fma_small/000/000141.mp3", "Hip-Hop", "valid", "55"),
        ("fma_small/000/000182.mp3", "Rock", "test", "70"),
    ]
    assert rows(table, "path", "label", "split", "group") == expected


def test_fma_medium_holds_small(tmp_path):
    sounds.write_fma(tmp_path)
    shutil.copytree(tmp_path / "fma_small", tmp_path / "fma_medium")
    sounds.tone(tmp_path / "fma_medium" / "000" / "000190.mp3", 0.6, 44100, 2, format="MP3")
    found = read_audio_table(tmp_path, {"name": "fma", "subset": "medium"})
    assert len(found) == 7
    assert found["path"].iloc[-1] == "fma_medium/000/000190.mp3"


@pytest.mark.parametrize("below", ["ICBHI_final_database", ""])
def test_icbhi_has_a_row_a_cycle_and_the_official_split(tmp_path, below, caplog):
    table = read_audio_table(sounds.write_icbhi(tmp_path, below), "icbhi")
    assert len(table) == 17
    stem = table["path"].str.rsplit("/").str[-1].str.removesuffix(".wav")
    assert set(stem[table["split"] == "test"]) == set(sounds.ICBHI_TEST)
    assert table["label"].tolist()[:4] == ["normal", "wheeze", "crackle", "both"]
    first = table.iloc[1]
    assert (first["start"], first["end"], first["patient_id"]) == (0.579, 1.45, "101")
    assert (first["recording"], first["location"], first["mode"], first["device"]) == ("1b1", "Al", "sc", "Meditron")


def test_icbhi_has_its_classes_in_the_order_of_the_challenge_and_says_whom_its_split_shares(tmp_path, caplog):
    dataset = AudioDataset(sounds.write_icbhi(tmp_path), "icbhi", rate=4000)
    assert dataset.classes == ("normal", "crackle", "wheeze", "both")
    assert dataset.labels[:4].tolist() == [0, 2, 1, 3]
    assert "patients that are in the test set and in others: 1 (156)" in caplog.text
    # A cycle is cut from its recording.
    assert len(dataset[1][0]) == round(1.45 * 4000) - round(0.579 * 4000)


@pytest.mark.parametrize(
    ("write", "adapter", "file", "content", "says"),
    [
        (sounds.write_urbansound8k, "urbansound8k", "metadata/UrbanSound8K.csv", None, "there is no such file"),
        (sounds.write_urbansound8k, "urbansound8k", "metadata/UrbanSound8K.csv", "a,b\n1,2\n", "lacks the column"),
        (sounds.write_urbansound8k, "urbansound8k", "metadata/UrbanSound8K.csv", "", "is not a readable table"),
        (sounds.write_urbansound8k, "urbansound8k", "audio/fold1/100100-0-0-1.wav", None, "there is no such file"),
        (
            sounds.write_esc50,
            "esc50",
            "meta/esc50.csv",
            "filename,fold,category,src_file,esc10\n",
            "holds no labelled",
        ),
        (sounds.write_fma, "fma", "fma_metadata/tracks.csv", "", "lacks the column set split"),
        (sounds.write_fma, "fma", "fma_metadata/tracks.csv", None, "there is no such file"),
        (sounds.write_icbhi, "icbhi", "ICBHI_challenge_train_test.txt", None, "there is no such file"),
        (sounds.write_icbhi, "icbhi", "ICBHI_challenge_train_test.txt", "a b c\n", "line 1 is not"),
        (
            sounds.write_icbhi,
            "icbhi",
            "ICBHI_challenge_train_test.txt",
            "101_1b1.wav\ttrain\n",
            "is not named patient",
        ),
        (
            *(sounds.write_icbhi, "icbhi", "ICBHI_final_database/101_1b1_Al_sc_Meditron.txt"),
            *("0.1\t0.2\t0\t2\n", "line 1 is not start, end, crackle"),
        ),
        (
            *(sounds.write_icbhi, "icbhi", "ICBHI_final_database/101_1b1_Al_sc_Meditron.txt"),
            *("0.9\t0.2\t0\t0\n", "ends before it begins"),
        ),
        (
            *(sounds.write_icbhi, "icbhi", "ICBHI_final_database/101_1b1_Al_sc_Meditron.txt"),
            *("0.1\tx\t0\t0\n", "has no number of seconds as its end"),
        ),
    ],
)
def test_what_is_amiss_with_a_data_set_is_one_line(tmp_path, write, adapter, file, content, says):
    write(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=says):
        read_audio_table(tmp_path, adapter)


def test_the_adapter_of_the_docs_keeps_patients_on_one_side(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "by_patient.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("by_patient")
    (tmp_path / "by_patient.py").unlink()
    for name in ("cat/p1_a.wav", "cat/more/p2_a.wav", "dog/p1_b.wav"):
        sounds.tone(tmp_path / name, 0.1)
    table = read_audio_table(tmp_path, "by_patient")
    expected = [("cat/more/p2_a.wav", "cat", "p2"), ("cat/p1_a.wav", "cat", "p1"), ("dog/p1_b.wav", "dog", "p1")]
    assert rows(table, "path", "label", "patient_id") == expected


def test_a_misspelt_adapter_or_parameter_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean urbansound8k"):
        read_audio_table(tmp_path, "urbansound8")
    with pytest.raises(UserError, match=r"adapter.esc: is unknown"):
        read_audio_table(tmp_path, {"name": "esc50", "esc": True})
    with pytest.raises(UserError, match="there is no adapter ''"):
        read_audio_table(tmp_path, {"subset": "small"})


def test_an_adapter_of_ones_own_is_one_function(tmp_path):
    @register_adapter("own", groups="sites")
    def own(data_dir, *, label: str = "x"):
        return pd.DataFrame({"path": ["a.wav", "a.wav"], "label": [label, "y"], "start": [None, 0.2]})

    sounds.tone(tmp_path / "a.wav")
    dataset = AudioDataset(tmp_path, {"name": "own", "label": "z"})
    assert dataset.classes == ("y", "z")
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.names.tolist() == ["a.wav_0", "a.wav_0.2"]
