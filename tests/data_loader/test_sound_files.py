"""Which audio files are found below a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_loader.sound_files import sounds_below
from utils.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder):
    return [path.relative_to(folder).as_posix() for path in sounds_below(folder)]


def test_what_lies_behind_a_link_to_a_folder_is_found(tmp_path):
    touch(tmp_path, "set/a/0.wav", "elsewhere/0.wav", "elsewhere/more/1.flac")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    expected = ["a/0.wav", "b/0.wav", "b/more/1.flac"]
    assert found(tmp_path / "set") == expected
    assert found(tmp_path / "link") == expected


def test_a_folder_that_is_there_twice_counts_once_by_its_own_name(tmp_path):
    touch(tmp_path, "set/cat/0.wav", "elsewhere/0.wav", "elsewhere/more/1.wav")
    for link, target in (("set/a", "set/cat"), ("set/x", "elsewhere"), ("set/y", "elsewhere")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert found(tmp_path / "set") == ["cat/0.wav", "x/0.wav", "x/more/1.wav"]


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "above.wav", "set/a/0.wav", "elsewhere/1.wav")
    # To itself, to the top, to what is above the top, and from one folder to another and back.
    for link, target in (("set/self", "set/self"), ("set/a/up", "set"), ("set/a/above", ""), ("set/b", "elsewhere")):
        (tmp_path / link).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set")
    assert found(tmp_path / "set") == ["a/0.wav", "b/1.wav"]


def test_hidden_folders_and_files_are_left_out(tmp_path):
    folder = touch(tmp_path / ".cache", "a/0.wav", "a/._0.wav", "a/.more/1.wav", ".Trash-1000/files/2.wav")
    (folder / ".link").symlink_to(touch(tmp_path / "elsewhere", "3.wav"))
    # The folder that is asked for may be hidden itself.
    assert found(folder) == ["a/0.wav"]


@pytest.mark.parametrize("below", ["", "a", "a/b", "link"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, below):
    # Permissions do not stop root, who may be the one that runs the tests.
    folder = touch(tmp_path / "set", "a/b/0.wav", "c/0.wav")
    (folder / "link").symlink_to(touch(tmp_path / "elsewhere", "1.wav"))
    closed, scandir = folder / below, os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be read: Permission denied") as error:
        sounds_below(folder)
    assert error.value.subject == str(closed)


def test_a_folder_that_is_listed_but_whose_files_cannot_be_looked_at_is_named(tmp_path, monkeypatch):
    folder = touch(tmp_path, "a/0.wav", "c/0.wav")
    stat = os.stat

    def refuse(path, **options):
        if Path(path) == folder / "c" / "0.wav":
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"cannot be read: Permission denied") as error:
        sounds_below(folder)
    assert error.value.subject == str(folder / "c")
