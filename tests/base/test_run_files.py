from __future__ import annotations

import json
import os

import pytest
from torch import nn

from base.run_files import announce_run, newest_checkpoint, publish, write_text
from tests.full_disk import full_disk
from tests.tiny import tiny_config
from utils.checkpoint import save_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError


@pytest.fixture
def runs(tmp_path):
    """Make checkpoints of runs, in the order given, below the folder that is returned."""

    def make(*names):
        for number, name in enumerate(names):
            path = tmp_path / name
            state = nn.Linear(2, 2).state_dict()
            content = {"config": {}, "epoch": 1, "state_dict": state, "classes": ["a"], "input": {}}
            save_checkpoint(path, content)
            # The newest by time is the oldest by name: a copy of a folder may have any times.
            for changed in (path, path.parent):
                os.utime(changed, (1e9 - number, 1e9 - number))
        return tmp_path

    return make


def found(folder):
    path = newest_checkpoint(folder)
    return None if path is None else path.relative_to(folder).as_posix()


def test_the_newest_checkpoint_is_the_last_of_the_last_run(runs):
    folder = runs(
        "1120_100000/checkpoint-epoch30.pth",
        "1121_100000/checkpoint-epoch2.pth",
        "1121_100000_2/checkpoint-epoch2.pth",
        "1121_100000_10/checkpoint-epoch9.pth",
        "1121_100000_10/checkpoint-epoch10.pth",
        "1121_100000_10/model_best.pth",
        "1121_100000_10/checkpoint-epoch11.pth.bak",
    )
    (folder / "1121_200000").mkdir()
    assert found(folder) == "1121_100000_10/checkpoint-epoch10.pth"


def test_a_run_of_january_comes_after_one_of_december_whatever_the_names(runs):
    folder = runs(
        "1231_235900/checkpoint-epoch1.pth", "mine/checkpoint-epoch1.pth", "0101_000100/checkpoint-epoch1.pth"
    )
    for name, began in (("1231_235900", "2026-12-31T23"), ("mine", "2027-01-01T05"), ("0101_000100", "2027-01-01T00")):
        (folder / name / "environment.json").write_text(json.dumps({"began": began}))
    assert found(folder) == "mine/checkpoint-epoch1.pth"


def test_a_checkpoint_from_the_midst_of_an_epoch_comes_before_its_end_and_after_the_epoch_before(runs):
    folder = runs("r/checkpoint-epoch2.pth", "r/checkpoint-epoch3-step90.pth", "r/checkpoint-epoch3-step100.pth")
    assert found(folder) == "r/checkpoint-epoch3-step100.pth"
    runs("r/checkpoint-epoch3.pth")
    assert found(folder) == "r/checkpoint-epoch3.pth"


def test_damaged_checkpoints_are_passed_over_and_named(runs, caplog):
    folder = runs("1/checkpoint-epoch7.pth", "2/checkpoint-epoch1.pth", "2/checkpoint-epoch2.pth")
    newest, before = folder / "2/checkpoint-epoch2.pth", folder / "2/checkpoint-epoch1.pth"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert found(folder) == "2/checkpoint-epoch1.pth"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(newest) in caplog.text
    before.write_bytes(b"")
    assert found(folder) == "1/checkpoint-epoch7.pth"
    assert str(before) in caplog.text


def test_without_a_run_there_is_no_newest_checkpoint(runs, tmp_path):
    assert found(tmp_path / "nothing") is None
    folder = runs("1/model_best.pth")
    (folder / "1/checkpoint-epoch1.pth").write_bytes(b"damaged")
    assert found(folder) is None


def test_a_run_that_begins_removes_what_killed_ones_were_writing(tmp_path):
    config = ConfigParser(tiny_config(tmp_path, tmp_path / "saved"))
    config.make_run_folders()
    left = [folder / ".0123456789abcdef.tmp" for folder in (config.save_dir, config.save_root)]
    for path in left:
        path.write_bytes(b"half a checkpoint")
    announce_run(config)
    assert not any(path.exists() for path in left)


def test_a_full_disk_leaves_the_history_as_it_was_and_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_text(path, '{"epoch": 1}\n')
    with full_disk(20), pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: File too large \(free"):
        write_text(path, '{"epoch": 1}\n{"epoch": 2}\n')
    assert path.read_text() == '{"epoch": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_best_checkpoint_that_cannot_be_published_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    new, old = tmp_path / "run" / "model_best.pth", tmp_path / "model_best.pth"
    new.write_bytes(bytes(1000))
    old.write_bytes(b"old")

    def refuse(*args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with full_disk(500), pytest.raises(UserError, match="File too large") as caught:
        publish(new, tmp_path)
    assert caught.value.subject == str(old)
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_best.pth", "run"]
