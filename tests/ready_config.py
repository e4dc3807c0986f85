"""A shipped config, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.tiny import ROOT, run
from utils.checkpoint import load_checkpoint


def train_resume_and_test(name: str, data_dir: Path, folder: Path) -> None:
    """Two epochs, and one and one more, end with the same weights, and test.py scores them."""
    config = ROOT / "configs" / f"{name}.json"

    def train(saved: Path, *argv: object) -> Path:
        sets = [f"trainer.save_dir={saved}", "trainer.epochs=2", "trainer.tensorboard=false", "trainer.keep_last=null"]
        where = ["--data-dir", data_dir, "--set", "data_loader.args.validation_split=0.3", *sets]
        assert run("train", *argv, "-d", "cpu", "--run_id", "a", *where) == 0
        return saved / "models" / name / "a"

    whole = train(folder / "whole", "-c", config)
    rest = train(folder / "rest", "-r", whole / "checkpoint-epoch1.pth")
    one, two = (load_checkpoint(run / "checkpoint-epoch2.pth")["state_dict"] for run in (whole, rest))
    assert all(torch.equal(one[name], two[name]) for name in one)
    last = whole / "checkpoint-epoch2.pth"
    assert run("test", "-r", last, "-d", "cpu", "--out-dir", folder, "--split", "valid") == 0
    assert (folder / "metrics.json").is_file()
