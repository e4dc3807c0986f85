from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from tests.processes import SCRIPT, train_with_two, trained_with_two
from tests.tiny import ROOT, run, tiny_config, tiny_run, write_config
from trainer.inference import predict
from utils.checkpoint import load_checkpoint, load_weights

pytestmark = pytest.mark.usefixtures("own_sigterm")


@pytest.fixture
def make(tiny_data, tmp_path):
    def make(**changes):
        return write_config(tmp_path / "c.json", tiny_config(tiny_data, tmp_path / "saved", **changes))

    return make


def run_folders(tmp_path):
    return sorted((tmp_path / "saved" / "models" / "tiny").glob("*"))


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_leaves_all_that_is_needed_to_know_it(make, tmp_path, capsys):
    config = make(trainer__tensorboard=True, trainer__epochs=1)
    assert run("train", "-c", config) == 0
    (folder,) = run_folders(tmp_path)
    names = {
        "checkpoint-epoch1.pth",
        "model_best.pth",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "train.log",
    }
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "config.json").read_text()) == json.loads(config.read_text())
    assert "commit" in json.loads((folder / "environment.json").read_text())
    assert (tmp_path / "saved" / "model_best.pth").read_bytes() == (folder / "model_best.pth").read_bytes()
    assert list((tmp_path / "saved" / "log" / "tiny" / folder.name).rglob("events*"))
    log, shown = (folder / "train.log").read_text(), capsys.readouterr().err
    for text in ("val_loss", f"python test.py -r {folder / 'model_best.pth'}", "Tiny: 130 trainable parameters"):
        assert text in log
        assert text in shown


def test_the_command_line_changes_what_is_run(make, tmp_path):
    flags = ["--lr", "0.5", "--bs", "8", "--run_id", "mine", "-d", "cpu"]
    sets = [
        "--set",
        "trainer.epochs=1",
        "trainer.monitor=max val_accuracy",
        "--set",
        "optimizer.args.betas=[0.8, 0.9]",
    ]
    assert run("train", "-c", make(), *flags, *sets) == 0
    config = json.loads((tmp_path / "saved/models/tiny/mine/config.json").read_text())
    assert config["optimizer"]["args"] == {"lr": 0.5, "betas": [0.8, 0.9]}
    assert config["data_loader"]["args"]["batch_size"] == 8
    assert config["trainer"]["monitor"] == "max val_accuracy"
    assert len(load_checkpoint(tmp_path / "saved/model_best.pth")["history"]) == 1


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("trainr.epochs=3", "error: trainr: is unknown (did you mean trainer?)"),
        ("optimizer.args.lr=-1", "error: optimizer.args: Invalid learning rate: -1"),
        ("arch.args.label_dim=3", "error: arch.args.label_dim: is 3, but task 1-1 has 2 classes"),
        ('data_loader.args.validation_split={"folds": 99, "fold": 0}', "error: data_loader.args.validation_split"),
        ("data_loader.args.split=trian", "has no items of split trian"),
        ('arch={"type": "ResNet18", "args": {"label_dim": 2, "weights": "nowhere.pth"}}', "error: arch.args.weights"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_run(make, tmp_path, capsys, setting, says):
    assert run("train", "-c", make(trainer__tensorboard=True), "--set", setting) == 1
    assert says in last_line(capsys)
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert run_folders(tmp_path) == []


def test_a_failed_start_leaves_the_newest_run_as_it_was(make, tmp_path):
    assert run("train", "-c", make(trainer__epochs=1)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert run("train", "-c", make(), "--set", "data_loader.args.split=trian") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "saved").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ("optimizer.args.lr=0.5", 1, "error: optimizer: differs from that of"),
        ('loss={"type": "focal"}', 0, "all 1 epochs are done"),
    ],
)
def test_a_run_is_described_as_it_was_trained_whatever_is_asked_of_it_later(
    make, tmp_path, capsys, change, status, says
):
    assert run("train", "-c", make(trainer__epochs=1)) == 0
    (folder,) = run_folders(tmp_path)
    before = (folder / "config.json").read_bytes()
    assert run("train", "-c", make(trainer__epochs=1), "-r", "auto", "--set", change) == status
    assert says in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


def test_auto_with_a_run_id_begins_that_run_and_goes_on_with_it_whatever_others_there_are(make, tmp_path, capsys):
    """As in a job queue, which sends the same command until it is done, for each of several seeds."""
    for seed in (1, 2):
        assert run("train", "-c", make(trainer__epochs=1, seed=seed), "-r", "auto", "--run_id", f"seed{seed}") == 0
    assert run("train", "-c", make(trainer__epochs=2, seed=1), "-r", "auto", "--run_id", "seed1") == 0
    folders = run_folders(tmp_path)
    assert sorted(folder.name for folder in folders) == ["seed1", "seed2"]
    newest = {folder.name: max(path.name for path in folder.glob("checkpoint-*")) for folder in folders}
    assert newest == {"seed1": "checkpoint-epoch2.pth", "seed2": "checkpoint-epoch1.pth"}


def test_auto_with_a_run_id_begins_anew_what_was_killed_before_its_first_checkpoint(make, tmp_path, capsys):
    argv = ["train", "-c", make(trainer__epochs=1), "-r", "auto", "--run_id", "killed"]
    assert run(*argv) == 0
    folder, log = tmp_path / "saved/models/tiny/killed", tmp_path / "saved/log/tiny/killed"
    for path in folder.iterdir():
        if path.name not in ("config.json", "environment.json", "train.log"):
            path.unlink()
    log.mkdir(parents=True)
    (log / "events.of.the.killed").touch()
    assert run(*argv) == 0
    assert (folder / "checkpoint-epoch1.pth").is_file()
    assert not (log / "events.of.the.killed").exists()

    (folder / "checkpoint-epoch1.pth").write_bytes(b"damaged")
    before = sorted(path.name for path in folder.iterdir())
    assert run(*argv) == 1
    assert "killed: has no checkpoint to go on from (remove it, or take another --run_id)" in last_line(capsys)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("argv", [["-c", "nowhere.json"], [], ["-r", "nowhere.pth"]])
def test_what_is_not_there_is_one_line(argv, capsys):
    assert run("train", *argv) == 1
    assert last_line(capsys).startswith("error: ")


def test_a_config_in_the_style_of_pytorch_template_runs(tiny_data, tmp_path):
    config = {
        "name": "Mnist_LeNet",
        "n_gpu": 1,
        "arch": {"type": "Tiny", "args": {"label_dim": 2}},
        "data_loader": {
            "type": "RespDataLoader",
            "args": {
                "data_dir": str(tiny_data),
                "batch_size": 32,
                "shuffle": True,
                "validation_split": 0.3,
                "num_workers": 0,
                "input_dir": "processed_stft",
            },
        },
        "optimizer": {"type": "Adam", "args": {"lr": 0.001, "weight_decay": 0, "amsgrad": True}},
        "loss": "cross_entropy",
        "metrics": ["accuracy"],
        "lr_scheduler": {"type": "StepLR", "args": {"step_size": 50, "gamma": 0.1}},
        "trainer": {
            "epochs": 2,
            "save_dir": str(tmp_path / "saved"),
            "save_period": 1,
            "verbosity": 2,
            "monitor": "min val_loss",
            "early_stop": 10,
            "tensorboard": False,
        },
    }
    assert run("train", "-c", write_config(tmp_path / "c.json", config)) == 0
    assert (tmp_path / "saved" / "model_best.pth").is_file()


def test_a_resumed_run_needs_no_config_and_stays_in_its_folder(make, tmp_path):
    assert run("train", "-c", make(trainer__epochs=1)) == 0
    (folder,) = run_folders(tmp_path)
    assert run("train", "-r", folder / "checkpoint-epoch1.pth", "--set", "trainer.epochs=3") == 0
    assert run_folders(tmp_path) == [folder]
    assert [figures["epoch"] for figures in load_checkpoint(folder / "checkpoint-epoch3.pth")["history"]] == [1, 2, 3]
    assert (folder / "train.log").read_text().count("trainable parameters") == 2


@pytest.mark.parametrize(("signum", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_a_signal_ends_the_run_with_its_state_saved(make, tmp_path, signum, workers):
    config = make(trainer__epochs=10**6, trainer__save_period=10**6, data_loader__args__num_workers=workers)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "-c", str(config)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "80"},
    ) as process:
        try:
            shown = next(line for line in process.stderr if re.search(r"^ +epoch +: 3$", line))
            # Ctrl-C reaches all processes of a terminal, also the loader's.
            os.killpg(process.pid, signum) if workers else process.send_signal(signum)
            shown += process.stderr.read()
            assert process.wait(timeout=60) == 128 + signum, shown
        finally:
            process.kill()
    assert "Traceback" not in shown
    assert shown.count("once more stops at once") == 1
    (folder,) = run_folders(tmp_path)
    (path,) = folder.glob("checkpoint-*.pth")
    checkpoint = load_checkpoint(path)
    assert f"python train.py -r {path}" in shown
    assert checkpoint["epoch"] >= 3
    assert checkpoint["epoch"] == len((folder / "metrics.jsonl").read_text().splitlines())

    epochs = f"trainer.epochs={checkpoint['epoch'] + 1}"
    assert run("train", "-r", path, "--set", epochs, "data_loader.args.num_workers=0") == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == checkpoint["epoch"] + 1


# The second process gets a signal in its third step.
SIGNALLED = SCRIPT.replace(
    "sys.exit(",
    """
import os, signal
from trainer.trainer import Trainer
step, steps = Trainer._step, []
def signalled(self, *args):
    steps.append(1)
    if len(steps) == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *args)
Trainer._step = signalled
sys.exit(""",
)


def test_two_processes_stop_and_go_on_together(make, tiny_data, tmp_path):
    """One of them gets the signal; both stop after the same step, and the resumed pair ends as the undisturbed one.

    There is one validation item, and so none for the second process.
    """
    changes = {"arch__args__dropout": 0.3, "data_loader__args__batch_size": 3, "trainer__epochs": 2}
    changes |= {"data_loader__args__validation_split": 1, "data_loader__args__split_by": "random"}
    trained_with_two(tmp_path, "-c", make(trainer__save_dir=str(tmp_path / "straight"), **changes))
    train_with_two(tmp_path, "-c", make(**changes), script=SIGNALLED)
    (folder,) = run_folders(tmp_path)
    (place,) = folder.glob("*.pth")
    assert place.name == "checkpoint-epoch1-step3.pth"
    trained_with_two(tmp_path, "-r", place)
    (straight,) = (tmp_path / "straight" / "models" / "tiny").glob("*")
    one, other = (load_checkpoint(run / "checkpoint-epoch2.pth") for run in (straight, folder))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for ours, theirs in zip(one["history"], other["history"], strict=True):
        for figures in (ours, theirs):
            del figures["samples_per_second"]
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_two_processes_train_one_run_and_measure_the_whole_split(make, tiny_data, tmp_path):
    changes = {"arch__args__norm": True, "arch__args__dropout": 0.3, "data_loader__args__batch_size": 6}
    config = make(trainer__epochs=2, trainer__tensorboard=True, trainer__early_stop=2, **changes)
    done = train_with_two(tmp_path, "-c", config)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = run_folders(tmp_path)
    assert done.stderr.count("trainable parameters") == 1
    checkpoint = load_checkpoint(folder / "checkpoint-epoch2.pth")

    trainer = tiny_run(tiny_data, tmp_path / "one", **changes)
    load_weights(trainer.model, checkpoint["state_dict"], folder)
    alone = trainer._valid_epoch(2)
    figures = checkpoint["history"][-1]
    assert {name: figures[f"val_{name}"] for name in alone} == pytest.approx(alone, rel=1e-5)
    n_items = len(predict(trainer.model, trainer.frontend, trainer.valid_data_loader, trainer.device).index)
    assert n_items == len(trainer.data_loader.valid_indices)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_what_one_does_with_the_same_global_batch(make, tiny_data, tmp_path, accumulate):
    # Weights by class: the batches of two processes weigh differently.
    changes = {
        "optimizer": {"type": "SGD", "args": {"lr": 0.5, "momentum": 0.9}},
        "data_loader__args__validation_split": 20,
        "trainer__accumulate": accumulate,
        "trainer__epochs": 2,
        "trainer__ema": 0.9 if accumulate == 2 else None,
    }
    alone = tiny_run(tiny_data, tmp_path / "one", data_loader__args__batch_size=12, **changes)
    assert len(alone.data_loader.train_indices) % 2 == 0
    alone.train()
    trained_with_two(tmp_path, "-c", make(data_loader__args__batch_size=6, **changes))
    (folder,) = run_folders(tmp_path)
    checkpoint = load_checkpoint(folder / "checkpoint-epoch2.pth")
    assert checkpoint["global_step"] == alone.global_step
    for name, value in alone.scored.state_dict().items():
        torch.testing.assert_close(checkpoint["state_dict"][name], value, atol=1e-5, rtol=1e-4)
