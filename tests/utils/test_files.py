import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.full_disk import full_disk
from utils.files import (
    atomic_link,
    atomic_path,
    atomic_write_bytes,
    atomic_write_npy,
    atomic_write_text,
    remove_leftovers,
    write_json,
)


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


def test_a_full_disk_is_said_with_the_name_of_the_file_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    for write in (
        lambda: atomic_write_bytes(path, bytes(100_000)),
        lambda: atomic_write_npy(path, np.zeros(100_000)),
        lambda: write_json(path, list(range(50_000))),
    ):
        with full_disk(50_000), pytest.raises(OSError, match="File too large") as caught:
            write()
        assert caught.value.filename == str(path)
        assert path.read_bytes() == b"old"
        assert _names(tmp_path) == ["a.bin"]


def test_a_file_in_the_place_of_a_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="file"):
        atomic_write_bytes(tmp_path / "file" / "a", b"y")
    assert _names(tmp_path) == ["file"]


def test_a_folder_that_refuses_everything_is_said_with_the_name_of_the_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system", str(args[0]))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only") as caught:
        atomic_write_bytes(tmp_path / "a.bin", b"x")
    assert caught.value.filename == str(tmp_path / "a.bin")


def test_what_a_killed_process_left_goes_and_what_another_is_writing_stays(tmp_path):
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half")
    others = [".hidden.tmp", "0123456789abcdef.tmp", "a.txt"]
    for name in others:
        (tmp_path / name).write_bytes(b"of the user")
    with atomic_path(tmp_path / "b.txt") as aside:
        aside.write_bytes(b"whole")
        remove_leftovers(tmp_path)
    assert (tmp_path / "b.txt").read_bytes() == b"whole"
    assert sorted(_names(tmp_path)) == sorted([*others, "b.txt"])


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_replaces_what_had_it(tmp_path, monkeypatch, links):
    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    for _ in range(2):
        atomic_link(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == b"new"
        assert (tmp_path / "a").samefile(tmp_path / "b") == links
        assert sorted(_names(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("array", [np.zeros((0, 3), np.uint8), np.arange(6, dtype=np.float16).reshape(2, 3)])
def test_an_array_is_written_as_numpy_writes_it(tmp_path, array):
    atomic_write_npy(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
