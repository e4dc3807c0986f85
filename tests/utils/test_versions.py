"""What a result was made with."""

from __future__ import annotations

import os
import shlex

import numpy as np
import pytest

from utils import versions


def test_installed_libraries_have_their_versions_and_others_are_left_out():
    assert versions.library_versions(("numpy", "no-such-library")) == {"numpy": np.__version__}


def test_outside_a_git_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.git_commit() is None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """This code in a repository of its own, committed."""
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "versions.py").write_text("one")
    (tmp_path / ".gitignore").write_text("/data/")
    versions._git("init", "--quiet")
    versions._git("add", ".")
    versions._git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "one")
    return tmp_path


@pytest.mark.parametrize("changed", ["utils/versions.py", "model.py", "model/new.py"])
def test_a_commit_says_whether_the_code_differs_from_it(checkout, changed):
    commit = versions.git_commit()
    assert len(commit) == 40
    (checkout / changed).parent.mkdir(exist_ok=True)
    (checkout / changed).write_text("two")
    assert versions.git_commit() == f"{commit}+changes"


def test_a_run_that_is_killed_leaves_no_lock_in_the_checkout(checkout):
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    # Git would like to note the new time of this file, for which it locks the index.
    os.utime(checkout / "utils" / "versions.py", (1, 1))
    assert len(versions.git_commit()) == 40
    assert index.read_bytes() == before


def test_what_is_no_code_is_no_change_of_it(checkout):
    (checkout / "data").mkdir()
    (checkout / "data" / "a.py").touch()
    (checkout / "notes.txt").touch()
    assert len(versions.git_commit()) == 40


def test_a_copy_in_the_checkout_of_another_project_has_no_commit(checkout, monkeypatch):
    copy = checkout / "copy"
    (copy / "utils").mkdir(parents=True)
    (copy / "utils" / "versions.py").touch()
    monkeypatch.setattr(versions, "ROOT", copy)
    assert versions.git_commit() is None


def test_the_command_comes_back_from_a_shell(monkeypatch):
    monkeypatch.setattr("sys.argv", ["test.py", "-r", "a b/c'd.pth"])
    assert shlex.split(versions.command_line()) == ["python", "test.py", "-r", "a b/c'd.pth"]
