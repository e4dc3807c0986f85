"""What several tests of training share: a network that trains in no time, and a config for it."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from pathlib import Path

import torch
from torch import nn

from base.base_model import BaseModel
from model import architectures
from utils.cli import run_script
from utils.config import ConfigParser, set_key
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@architectures.register()
class Tiny(BaseModel):
    """Average pooling to 8x8, dropout, one linear layer; with `norm`, batch normalisation before it.

    `weights` stands for pretrained ones: a file that has to be there.
    """

    def __init__(self, label_dim: int, dropout: float = 0.0, norm: bool = False, weights: str | None = None) -> None:
        super().__init__()
        if weights is not None and not Path(weights).is_file():
            raise UserError("arch.args.weights", f"there is no file {weights}")
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(64, label_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
        return self.linear(self.dropout(self.norm(pooled)))

    @classmethod
    def input_problem(cls, args, shape):
        return None if tuple(shape) == (1, 224, 224) else f"Tiny takes (1, 224, 224), the items are {tuple(shape)}"


_CONFIG = {
    "name": "tiny",
    "seed": 0,
    "arch": {"type": "Tiny", "args": {"label_dim": 2}},
    "data_loader": {
        "type": "RespDataLoader",
        "args": {"batch_size": 16, "task": 1, "level": 1, "input_dir": "processed_stft", "validation_split": 0.3},
    },
    "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
    "loss": {"type": "cross_entropy", "args": {"weight": "balanced"}},
    "metrics": ["accuracy", "score_task1"],
    "lr_scheduler": None,
    "trainer": {"epochs": 2, "monitor": "min val_loss", "tensorboard": False, "precision": "fp32", "verbosity": 1},
}


def tiny_config(data_dir: Path, save_dir: Path, **changes: object) -> dict:
    """A config of `Tiny`; `changes` are dotted keys with ``__`` for the dot."""
    config = copy.deepcopy(_CONFIG)
    config["data_loader"]["args"]["data_dir"] = str(data_dir)
    config["trainer"]["save_dir"] = str(save_dir)
    for key, value in changes.items():
        set_key(config, key.replace("__", "."), value)
    return config


def tiny_run(data_dir: Path, save_dir: Path, resume: Path | None = None, device: str = "cpu", **changes: object):
    """A trainer for `tiny_config`, ready to train, made as train.py makes it."""
    from trainer.setup import make_trainer

    config = ConfigParser(tiny_config(data_dir, save_dir, **changes), resume=resume)
    torch.manual_seed(config.seed)
    config.make_run_folders()
    return make_trainer(config, torch.device(device))


def write_config(path: Path, config: dict) -> Path:
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def run(name: str, *argv: object) -> int:
    """Run train.py or test.py in this process; its exit status. (``import test`` would be Python's own.)"""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        return run_script(script.main, script.parser(), [str(word) for word in argv])
    finally:
        _close_log_files()


def _close_log_files() -> None:
    """As the end of the script's process does: what later tests say is not of its run."""
    log = logging.getLogger("resp")
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()
