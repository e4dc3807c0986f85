"""``train.py --folds --reuse``: runs of another group that are the same are taken."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace

import pytest

from tests.group_run import COMMON
from tests.tiny import run, tiny_config, write_config
from trainer.building import make_loader
from trainer.distillation import write_soft_targets
from trainer.group import check_group, read_group
from trainer.reuse import _difference
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import ConfigParser, set_key

pytestmark = pytest.mark.usefixtures("forked_parts", "own_sigterm")
LAST = "checkpoint-epoch1.pth"


def group_of(folder, data_dir, name, **changes):
    """Arguments of a group of two folds, and its folder."""
    changes = COMMON | {"name": name, "arch__args__label_dim": 3, "trainer__epochs": 1} | changes
    # All in one folder `saved`, where members of one name have one config.
    file = write_config(folder / f"{name}.json", tiny_config(data_dir, folder / "saved", **changes))
    ensemble = write_config(folder / f"{name}_all.json", {"name": f"{name}_all", "ensemble": [file.name]})
    return ("-c", ensemble, "--folds", 2, "--run_id", "g"), folder / "saved" / "models" / f"{name}_all" / "g"


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """The folder of a trained group."""
    arguments, group = group_of(tmp_path_factory.mktemp("source"), tiny_data, "one")
    assert run("train", *arguments) == 0
    return group


@pytest.fixture
def source(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "source")


def trained_parts(group):
    """The runs that a group trained itself: what they said is beside them."""
    return sorted(path.stem for path in (group / "output").iterdir() if path.stat().st_size)


def test_what_another_group_has_trained_is_taken_and_the_rest_is_trained(tiny_data, source, tmp_path, capsys):
    arguments, group = group_of(tmp_path, tiny_data, "one", decide="argmax")
    assert run("train", *arguments, "--seeds", 2, "--reuse", source) == 0
    assert "2 of 4 runs are taken" in capsys.readouterr().err
    assert trained_parts(group) == ["one-seed1-fold0", "one-seed1-fold1"]
    for fold in (0, 1):
        own, taken = (path / f"one-seed0-fold{fold}" / LAST for path in (group, source))
        assert own.read_bytes() == taken.read_bytes()
    metrics = json.loads((group / "oof" / "metrics.json").read_text())
    minutes = json.loads((source / "minutes.json").read_text())
    assert metrics["minutes"]["one-seed0-fold0"] == pytest.approx(minutes["one-seed0-fold0"], abs=1e-3)
    assert metrics["seeds"].keys() == {"0", "1"}
    assert not list(group.glob(".one*"))


def test_a_run_of_another_config_or_with_a_damaged_checkpoint_is_not_taken(tiny_data, source, tmp_path, capsys):
    damaged = source / "one-seed0-fold1" / LAST
    damaged.write_bytes(damaged.read_bytes()[:-100])
    arguments, group = group_of(tmp_path, tiny_data, "one")
    assert run("train", *arguments, "--reuse", source) == 0
    shown = capsys.readouterr().err
    assert "one-seed0-fold1: is not taken from" in shown
    assert "its checkpoint is damaged" in shown
    assert trained_parts(group) == ["one-seed0-fold1"]
    shutil.rmtree(group)
    # What config.json says was not trained: it is written also where nothing is left to train.
    said = source / "one-seed0-fold0" / "config.json"
    said.write_text(said.read_text().replace("0.01", "0.0123"))
    assert run("train", *arguments, "--reuse", source, "--lr", "0.0123") == 0
    assert "it has another optimizer.args.lr" in capsys.readouterr().err
    assert trained_parts(group) == ["one-seed0-fold0", "one-seed0-fold1"]


@pytest.fixture
def differs(tiny_data, source, tmp_path):
    """In what the first run of `source`, with some changes of its checkpoint, is not the one of a group."""
    arguments, _ = group_of(tmp_path, tiny_data, "one")
    none = dict.fromkeys(["resume", "set", "lr", "bs", "data_dir", "seeds"])
    group = read_group(Namespace(config=arguments[1], folds=2, **none))
    record, _ = check_group(group)
    path = source / "one-seed0-fold0" / LAST

    def differs(**changes):
        checkpoint = load_checkpoint(path)
        for key, value in changes.items():
            set_key(checkpoint, key.replace("__", "."), value)
        save_checkpoint(path, checkpoint)
        return _difference(source, group.parts[0], record["input"])

    return differs


def test_a_run_of_other_features_is_not_taken(differs):
    # How they were normalised follows from the config and the data.
    assert differs(input__mean=3.0) is None
    assert differs(input__input_dir="processed_other") is None
    assert differs(input__shape=[1, 224, 200]) == "it has another input.shape"
    assert differs(input__method="none") == "it has another input"


def test_a_run_of_a_version_that_left_a_default_to_itself_is_taken(differs):
    augment = {"splice": 0, "mixup": 0.0}
    assert differs(config__arch__args__dropout=0, config__data_loader__args__augment=augment) is None
    assert differs(config__recording_context=True) is None
    assert differs(config__arch__args__dropout=0.5) == "it has another arch.args.dropout"


def test_a_run_of_a_config_that_is_none_is_not_taken(differs):
    assert differs(config__trainer={}) == "its config does not fit this program: trainer: lacks the key epochs"


def test_a_student_of_another_teacher_is_not_taken(tiny_data, source, tmp_path, capsys):
    config = ConfigParser(json.loads((source / "one-seed0-fold0" / "config.json").read_text()))
    loader = make_loader(config)
    names, classes = loader.dataset.names, loader.classes
    table = tmp_path / "t.csv"

    def teach(share):
        rest = (1 - share) / (len(classes) - 1)
        write_soft_targets(table, names, [[share, *[rest] * (len(classes) - 1)]] * len(names), classes)

    teach(0.5)
    arguments, first = group_of(tmp_path, tiny_data, "one", distillation={"soft_targets": str(table)})
    assert run("train", *arguments) == 0
    shutil.move(first, tmp_path / "first")
    assert run("train", *arguments, "--reuse", tmp_path / "first") == 0
    assert "2 of 2 runs are taken" in capsys.readouterr().err
    shutil.rmtree(first)
    teach(0.6)
    assert run("train", *arguments, "--reuse", tmp_path / "first") == 0
    assert "it has another teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda group: (group / "group.json").unlink(), "is no group of runs"),
        (lambda group: change(group, folds=3), "is of other folds than this group"),
        (lambda group: change(group, data={}), "is of other data than this group"),
    ],
)
def test_what_cannot_be_taken_from_is_refused_before_anything_is_trained(
    tiny_data, source, tmp_path, capsys, edit, said
):
    edit(source)
    arguments, group = group_of(tmp_path, tiny_data, "one")
    assert run("train", *arguments, "--reuse", source) == 1
    assert f"error: {source}: {said}" in capsys.readouterr().err
    assert not group.exists()


def change(group, **changes):
    path = group / "group.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
