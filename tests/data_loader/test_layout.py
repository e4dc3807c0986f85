"""The layouts that preprocessing recognises."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import soundfile

from data_loader.layout import find_pairs
from data_loader.tables import build_tables
from utils.errors import UserError


def put(audio_dir, json_dir, stem, suffix=".wav"):
    for folder in (audio_dir, json_dir):
        folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(audio_dir / f"{stem}{suffix}", np.full(8000, 0.01, np.float32), 8000)
    annotation = {"record_annotation": "Normal", "event_annotation": []}
    (json_dir / f"{stem}.json").write_text(json.dumps(annotation))


def splits(data_dir):
    return {pair.stem: pair.split for pair in find_pairs(data_dir)}


@pytest.mark.parametrize("below", [".", "releases"])
def test_the_official_layout_is_found_with_its_test_parts(tmp_path, below):
    release = tmp_path / below / "BioCAS2022"
    put(release / "train2022_wav", release / "train2022_json", "1_1.0_0_p1_1")
    put(release / "test2022_wav", release / "test2022_json" / "inter_test_json", "2_1.0_0_p1_2")
    put(release / "test2022_wav", release / "test2022_json" / "intra_test_json", "1_1.0_0_p1_3")
    later = tmp_path / below / "BioCAS2023"
    put(later / "test2023_wav", later / "test2023_json", "_5.3_0_p8_34877", suffix=".flac")
    assert splits(tmp_path) == {
        "1_1.0_0_p1_1": "train",
        "2_1.0_0_p1_2": "inter",
        "1_1.0_0_p1_3": "intra",
        "_5.3_0_p8_34877": "test2023",
    }
    assert not build_tables(tmp_path).bad


def test_the_early_official_layout_is_found(tmp_path):
    put(tmp_path / "train_wav", tmp_path / "train_json", "1_1.0_0_p1_1")
    put(tmp_path / "test_wav", tmp_path / "test_json" / "intra_test_json", "1_1.0_0_p1_2")
    put(tmp_path / "test_wav", tmp_path / "test_json", "3_1.0_0_p1_3")
    assert splits(tmp_path) == {"1_1.0_0_p1_1": "train", "1_1.0_0_p1_2": "intra", "3_1.0_0_p1_3": "test"}


def test_the_flat_layout_is_found(tmp_path):
    put(tmp_path / "wav", tmp_path / "json", "1_1.0_0_p1_1")
    assert splits(tmp_path) == {"1_1.0_0_p1_1": "train"}


def test_a_folder_of_other_sounds_says_that_it_is_not_sprsound_and_where_to_read_on(tmp_path):
    wheezes = tmp_path / "wheeze"
    put(wheezes, wheezes, "1")
    with pytest.raises(UserError, match=r"nothing of SPRSound in any of its layouts .*docs/datasets.md"):
        find_pairs(tmp_path)


def test_a_recording_of_two_releases_counts_for_the_earlier_one(tmp_path):
    early, late = tmp_path / "BioCAS2022", tmp_path / "BioCAS2024"
    put(early / "test2022_wav", early / "test2022_json" / "inter_test_json", "1_1.0_0_p1_1")
    put(late / "train2024_wav", late / "train2024_json", "1_1.0_0_p1_1")
    assert splits(tmp_path) == {"1_1.0_0_p1_1": "inter"}


@pytest.mark.parametrize("make", [lambda d: None, lambda d: d.mkdir(), lambda d: (d / "wav").mkdir(parents=True)])
def test_no_data_names_the_two_ways_on(tmp_path, make):
    folder = tmp_path / "data"
    make(folder)
    with pytest.raises(UserError, match=r"--download.*--demo"):
        find_pairs(folder)


def test_a_name_that_is_there_as_wav_and_flac_is_an_error(tmp_path):
    put(tmp_path / "wav", tmp_path / "json", "1_1.0_0_p1_1")
    put(tmp_path / "wav", tmp_path / "json", "1_1.0_0_p1_1", suffix=".flac")
    with pytest.raises(UserError, match="twice"):
        find_pairs(tmp_path)


def test_hidden_files_are_left_out_and_suffixes_may_be_capital(tmp_path):
    put(tmp_path / "wav", tmp_path / "json", "1_1.0_0_p1_1")
    (tmp_path / "wav" / "1_1.0_0_p1_1.wav").rename(tmp_path / "wav" / "1_1.0_0_p1_1.WAV")
    (tmp_path / "json" / "1_1.0_0_p1_1.json").rename(tmp_path / "json" / "1_1.0_0_p1_1.JSON")
    for folder, suffix in (("wav", "WAV"), ("json", "json")):
        # What macOS leaves in archives.
        (tmp_path / folder / f"._1_1.0_0_p1_1.{suffix}").write_bytes(b"\0")
    assert splits(tmp_path) == {"1_1.0_0_p1_1": "train"}
    assert not build_tables(tmp_path).bad


def test_annotations_beside_no_audio_are_named(tmp_path):
    put(tmp_path / "train_wav", tmp_path / "train_json", "1_1.0_0_p1_1")
    (tmp_path / "train_wav").rename(tmp_path / "audio")
    with pytest.raises(UserError, match=r"train_json.*no train_wav or train_flac"):
        find_pairs(tmp_path)


def test_a_release_may_be_half_wav_and_half_flac(tmp_path):
    put(tmp_path / "train_wav", tmp_path / "train_json", "1_1.0_0_p1_1")
    put(tmp_path / "train_flac", tmp_path / "train_json", "1_1.0_0_p1_2", suffix=".flac")
    assert len(splits(tmp_path)) == 2
    assert not build_tables(tmp_path).bad


def test_folders_and_pipes_with_the_name_of_a_recording_are_none(tmp_path):
    put(tmp_path / "wav", tmp_path / "json", "1_1.0_0_p1_1")
    (tmp_path / "wav" / "1_1.0_0_p1_2.wav").mkdir()
    os.mkfifo(tmp_path / "wav" / "1_1.0_0_p1_3.wav")
    assert list(splits(tmp_path)) == ["1_1.0_0_p1_1"]
