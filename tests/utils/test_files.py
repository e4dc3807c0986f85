import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.files import atomic_path, atomic_write_bytes, atomic_write_text, write_json


def _names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with atomic_path(path) as aside:
            aside.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_the_name_is_not_there_before_the_content_is_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with atomic_path(path) as aside:
        assert aside.parent == path.parent
        aside.write_bytes(b"123")
        assert not path.exists()
    assert path.read_bytes() == b"123"
    assert _names(path.parent) == ["a.bin"]


def test_files_get_the_rights_that_any_new_file_gets(tmp_path):
    atomic_write_bytes(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_text_is_written_as_utf8_without_newline_translation(tmp_path):
    atomic_write_text(tmp_path / "a", "ä\r\nb\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_json_takes_paths_arrays_and_tensors(tmp_path):
    data = {"path": Path("a/b"), "array": np.arange(3), "number": np.float32(0.5), "tensor": torch.tensor([1, 2])}
    write_json(tmp_path / "a.json", data)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == {"path": "a/b", "array": [0, 1, 2], "number": 0.5, "tensor": [1, 2]}


@pytest.mark.parametrize("bad, error", [(math.nan, ValueError), (np.array([1, np.inf]), ValueError), ({1}, TypeError)])
def test_json_that_nobody_could_read_is_not_written(tmp_path, bad, error):
    with pytest.raises(error):
        write_json(tmp_path / "a.json", {"value": bad})
    assert _names(tmp_path) == []


def test_a_file_name_that_is_no_text_can_be_written_and_read_back(tmp_path):
    name = os.fsdecode(b"\xff.wav")
    write_json(tmp_path / "a.json", {name: "Normal", "é": 1})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {name: "Normal", "é": 1}
    atomic_write_text(tmp_path / "b", name)
    assert (tmp_path / "b").read_bytes() == b"\xff.wav"
