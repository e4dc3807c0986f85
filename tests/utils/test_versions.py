"""What a result was made with."""

from __future__ import annotations

import numpy as np

from utils import versions


def test_installed_libraries_have_their_versions_and_others_are_left_out():
    assert versions.library_versions(("numpy", "no-such-library")) == {"numpy": np.__version__}


def test_outside_a_git_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    assert versions.git_commit() is None


def test_a_commit_says_whether_the_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    versions._git("init", "--quiet")
    (tmp_path / "a.txt").write_text("one")
    versions._git("add", "a.txt")
    versions._git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "one")
    commit = versions.git_commit()
    assert len(commit) == 40
    (tmp_path / "a.txt").write_text("two")
    assert versions.git_commit() == f"{commit}+changes"
