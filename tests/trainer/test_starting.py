"""`start_from`: a training that begins with the weights of another."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch

from base.run_files import newest_of_run
from model.ast_weights import resize_position_embeddings
from tests.group_run import COMMON
from tests.tiny import run, tiny_config, tiny_run, write_config
from trainer.check import check_config
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import ConfigParser
from utils.errors import UserError

NORM = {"arch__args__norm": True, "trainer__epochs": 1}
FINE = {"arch__args__label_dim": 7, "data_loader__args__level": 2}


def trained(data_dir, save_dir, **changes):
    """The newest checkpoint of a run."""
    trainer = tiny_run(data_dir, save_dir, **NORM | changes)
    trainer.train()
    return newest_of_run(trainer.config.save_dir)


def beginning(data_dir, save_dir, checkpoint, *excepted, **changes):
    """A run that begins from a checkpoint, before its first step."""
    start = {"checkpoint": str(checkpoint), "except": list(excepted)}
    return tiny_run(data_dir, save_dir, **NORM | {"start_from": start} | changes)


@pytest.fixture(scope="module")
def of_all(tiny_data, tmp_path_factory):
    """The checkpoint of a network that was trained on all patients."""
    return trained(tiny_data, tmp_path_factory.mktemp("all"), data_loader__args__validation_split=0)


@pytest.fixture
def unvalidated(tiny_data, tmp_path):
    """Of `beginning`, but for the checkpoint and what begins anew."""
    return lambda *start, **changes: beginning(
        tiny_data, tmp_path, *start, data_loader__args__validation_split=0, **{"trainer__monitor": "off"} | changes
    )


def test_it_begins_with_all_weights_but_those_that_are_named(of_all, unvalidated):
    """Of a task of more classes, too."""
    begun, saved = unvalidated(of_all, "linear", **FINE), load_checkpoint(of_all)["state_dict"]
    own = begun.model.state_dict()
    assert own["linear.weight"].shape == (7, 64)
    kept = [name for name in own if name.startswith("norm.")]
    assert "norm.running_var" in kept
    for name in kept:
        assert torch.equal(own[name], saved[name])
    same = unvalidated(of_all)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in same.model.state_dict().items())


def test_an_ast_begins_from_one_for_shorter_sounds(tiny_data, tmp_path):
    """Its position embeddings are interpolated, as those of published weights."""
    unvalidated = {"data_loader__args__validation_split": 0, "trainer__monitor": "off"}
    args = {"label_dim": 2, "model_size": "tiny224", "indim": 1, "input_fdim": 224, "input_tdim": 224, "fstride": 64}
    short, long = ({"type": "ASTModel", "args": {**args, "tstride": stride}} for stride in (104, 52))
    saved = load_checkpoint(trained(tiny_data, tmp_path, arch=short, **unvalidated))
    save_checkpoint(tmp_path / "short.pth", saved)
    begun = tiny_run(tiny_data, tmp_path, arch=long, start_from={"checkpoint": f"{tmp_path}/short.pth"}, **unvalidated)
    name = "backbone.embeddings.position_embeddings"
    before, after = saved["state_dict"][name], begun.model.state_dict()[name]
    assert (before.shape[1], after.shape[1]) == (2 + 4 * 3, 2 + 4 * 5)
    torch.testing.assert_close(after, resize_position_embeddings(before, (4, 3), (4, 5)))
    head = "head.1.weight"
    assert torch.equal(begun.model.state_dict()[head], saved["state_dict"][head])


def test_the_rest_is_as_without_it_and_pretrained_weights_are_not_read(of_all, unvalidated):
    alone = unvalidated(of_all, "linear", start_from=None)
    begun = unvalidated(of_all, "linear", arch__args__weights="no such file")
    assert torch.equal(begun.model.linear.weight, alone.model.linear.weight)


def test_what_it_began_from_is_kept_and_needed_no_more(of_all, tiny_data, tmp_path):
    """A run that goes on, and a test."""
    start = shutil.copy(of_all, tmp_path / "start.pth")
    changes = {"data_loader__args__validation_split": 0, "trainer__monitor": "off"}
    first = trained(tiny_data, tmp_path, start_from={"checkpoint": str(start)}, **changes)
    (origin,) = load_checkpoint(first)["origins"]
    assert origin["start_from"]["path"] == str(start)
    assert len(origin["start_from"]["sha256"]) == 64
    (tmp_path / "start.pth").unlink()
    assert run("train", "-r", first, "--set", "trainer.epochs=2") == 0
    newest = load_checkpoint(newest_of_run(first.parent))
    assert newest["epoch"] == 2
    assert newest["origins"][0] == origin
    assert run("test", "-r", first, "--split", "train") == 0


def test_it_is_not_validated_on_patients_that_it_began_with(of_all, tiny_data, tmp_path):
    with pytest.raises(UserError, match="was trained on 2 of the patients that this run is validated on"):
        beginning(tiny_data, tmp_path, of_all)
    own = trained(tiny_data, tmp_path)
    beginning(tiny_data, tmp_path, own)
    with pytest.raises(UserError, match="of the patients that this run is validated on"):
        beginning(tiny_data, tmp_path, own, data_loader__args__seed=3)


def test_nor_on_those_of_another_task_or_of_what_that_one_began_with(of_all, tiny_data, own_data, tmp_path, caplog):
    recordings = {"data_loader__args__task": 2, "arch__args__label_dim": 3, "metrics": ["score_task2"]}
    with pytest.raises(UserError, match="of the patients that this run is validated on"):
        beginning(tiny_data, tmp_path, of_all, "linear", **recordings)

    # Other data: a patient less. Whose sounds these are cannot be told, but that of what came before.
    table = (own_data / "task1.csv").read_text().splitlines(keepends=True)
    last = table[-1].split(",")[0]
    (own_data / "task1.csv").write_text("".join(row for row in table if not row.startswith(last)))
    unvalidated = {"data_loader__args__validation_split": 0, "trainer__monitor": "off"}
    start = {"start_from": {"checkpoint": str(of_all)}}
    between = trained(own_data, tmp_path, **unvalidated, **start)
    alone = trained(own_data, tmp_path, **unvalidated)
    with pytest.raises(UserError, match="of the patients that this run is validated on"):
        beginning(tiny_data, tmp_path, between)
    beginning(tiny_data, tmp_path, alone)
    assert f"whose sounds {alone} was trained on is not known here ({tiny_data} is other data)" in caplog.text


def test_what_a_strange_checkpoint_was_trained_on_is_not_known_and_that_is_said(of_all, tiny_data, tmp_path, caplog):
    checkpoint = load_checkpoint(of_all)
    checkpoint["config"]["data_loader"]["args"] |= {"batch_size": -1, "mystery": []}
    save_checkpoint(tmp_path / "strange.pth", checkpoint)
    beginning(tiny_data, tmp_path, tmp_path / "strange.pth")
    assert "strange.pth was trained on is not known here (data_loader.args.mystery is unknown)" in caplog.text


@pytest.mark.parametrize(
    "excepted, changes, said",
    [
        ([], {"arch__args__norm": False}, "unexpected: norm.bias, .*start_from.except names .*; here: norm"),
        (
            [],
            {"arch__args__label_dim": 7, "data_loader__args__level": 2},
            r"another shape: linear.bias \(2,\) instead of \(7,\), .*here: linear",
        ),
        (["norm"], FINE, "here: linear"),
        (["lin"], {}, "start_from.except: names lin, which is no part of the model .it has norm, linear"),
        (
            [],
            {"arch": {"type": "LightCNN", "args": {"label_dim": 2}}},
            "begin from a network of the same arch",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_with_what_to_do(of_all, unvalidated, excepted, changes, said):
    with pytest.raises(UserError, match=said):
        unvalidated(of_all, *excepted, **changes)


def test_other_classes_and_another_input_that_fit_all_the_same_are_said(of_all, unvalidated, tmp_path, caplog):
    checkpoint = load_checkpoint(of_all)
    checkpoint["classes"] = ["Healthy", "Other"]
    checkpoint["input"]["method"] = "wavelet"
    save_checkpoint(tmp_path / "other.pth", checkpoint)
    with caplog.at_level(logging.INFO):
        unvalidated(tmp_path / "other.pth", "linear")
    assert "other.pth was trained on another input.method" in caplog.text
    assert "knows the classes" not in caplog.text
    unvalidated(tmp_path / "other.pth")
    assert "knows the classes Healthy, Other, and its last layer begins for others" in caplog.text


def test_several_networks_are_refused(of_all, unvalidated, tmp_path):
    checkpoint = load_checkpoint(of_all)
    checkpoint["config"]["arch"] = {"type": "Ensemble", "args": {}}
    save_checkpoint(tmp_path / "ensemble.pth", checkpoint)
    with pytest.raises(UserError, match=r"holds several networks .name that of one of them"):
        unvalidated(tmp_path / "ensemble.pth")


@pytest.mark.parametrize(
    "start, changes, said",
    [
        ({"checkpoint": "nowhere.pth"}, {}, "start_from.checkpoint: there is no file nowhere.pth"),
        ({"checkpoint": "fold{fold}.pth"}, {}, "but this run is no fold"),
        ({"except": ["linear"]}, {}, "start_from: lacks the key checkpoint"),
        ({"checkpoint": "x.pth", "expect": []}, {}, "start_from.expect: is unknown .choose from checkpoint, except"),
        ({"checkpoint": "x.pth", "except": "linear"}, {}, 'start_from.except: is "linear" .expected a list'),
    ],
)
def test_a_start_that_cannot_be_is_refused(tiny_data, tmp_path, start, changes, said):
    with pytest.raises(UserError, match=said):
        check_config(ConfigParser(tiny_config(tiny_data, tmp_path, start_from=start, **changes)))


@pytest.mark.usefixtures("forked_parts", "own_sigterm")
def test_each_fold_begins_from_that_of_its_own(tiny_data, tmp_path, capsys):
    changes = COMMON | NORM | {"arch__args__label_dim": 3, "data_loader__args__task": 2}
    config = write_config(tmp_path / "tiny.json", tiny_config(tiny_data, tmp_path / "saved", **changes))
    group = ["train", "-c", config, "--folds", 2, "--run_id"]
    assert run(*group, "first") == 0
    first = tmp_path / "saved/models/tiny/first"
    ready = f"{first}/tiny-seed{{seed}}-fold{{fold}}/checkpoint-epoch1.pth"
    assert run(*group, "second", "--set", f"start_from.checkpoint={ready}") == 0
    for fold in (0, 1):
        part = tmp_path / f"saved/models/tiny/second/tiny-seed0-fold{fold}/checkpoint-epoch1.pth"
        (origin,) = load_checkpoint(part)["origins"]
        assert origin["start_from"]["path"] == ready.format(seed=0, fold=fold)

    # The runs of the second group are no longer those that would be trained from what is there now.
    assert run(*group, "third", "--reuse", first, "--set", f"start_from.checkpoint={ready}") == 0
    assert "0 of 2 runs are taken" in capsys.readouterr().err
    one = first / "tiny-seed0-fold0/checkpoint-epoch1.pth"
    assert run(*group, "crossed", "--set", f"start_from.checkpoint={one}") == 1
    (one.parent / "checkpoint-epoch1.pth").unlink()
    assert run(*group, "fourth", "--set", f"start_from.checkpoint={ready}") == 1
    assert f"there is no file {one}" in capsys.readouterr().err
    assert not (tmp_path / "saved/models/tiny/fourth").exists()
