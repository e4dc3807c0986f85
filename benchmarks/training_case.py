"""What the benchmarks of training share: three models, each with a config, real features, and batches in memory."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import ROOT
from torch import Tensor, nn

from data_loader.extract import extract
from data_loader.features import methods
from data_loader.synthetic import write_synthetic
from data_loader.tables import build_tables, write_tables
from trainer.building import make_criterion, make_loader, make_model
from trainer.check import check_config
from trainer.inference import to_input
from trainer.optimization import make_optimizer
from trainer.setup import make_trainer
from trainer.trainer import Trainer
from utils.config import ConfigParser, read_config, set_key


@dataclass(frozen=True)
class Case:
    """A model to train.

    Attributes:
        name: for the table.
        config: the shipped config that it starts from.
        method: of the features.
        arch: arguments of the architecture that differ from the config's.
        batch_size: items a step.
        paper: whether baseline D trains it too.
    """

    name: str
    config: str
    method: str
    arch: dict[str, Any]
    batch_size: int
    paper: bool


_AST = {"model_size": "tiny224", "audioset_pretrain": False, "input_tdim": 256, "input_fdim": 128}
CASES = (
    Case("LightCNN", "task1_1_lightcnn.json", "wavelet", {"indim": 3}, 32, True),
    Case("ResNet18", "task1_1_resnet18.json", "wavelet", {"indim": 3, "pretrained": False}, 32, True),
    Case("AST tiny", "task1_1_ast.json", "ast", _AST, 16, False),
)


@contextlib.contextmanager
def data_folder(case: Case, data_dir: Path, steps: int) -> Iterator[Path]:
    """A data folder with the features of events of SPRSound, all over the set; as many as make so many batches.

    Where SPRSound is not, events of the synthetic set take its place.
    """
    items = steps * case.batch_size
    with tempfile.TemporaryDirectory(prefix="training_") as name:
        folder = Path(name) / "data"
        folder.mkdir()
        if (data_dir / "BioCAS2022").is_dir():
            (folder / "BioCAS2022").symlink_to((data_dir / "BioCAS2022").resolve())
        else:
            print(f"{data_dir} has no recordings: these are synthetic ones")
            write_synthetic(folder, patients=max(6, items // 20))
        tables = build_tables(folder)
        events = tables.task1[tables.task1["split"] == "train"]
        if len(events) < items:
            raise SystemExit(f"error: {data_dir}: has {len(events)} events, {items} are needed (take fewer --steps)")
        events = events.iloc[np.linspace(0, len(events) - 1, items).astype(int)].reset_index(drop=True)
        tables = replace(tables, task1=events)
        write_tables(tables, folder)
        feature = methods[case.method]
        params = feature.checked({}, case.method)
        extract(folder, feature, params, {1: tables.of(1)}, tables.digests, workers=os.cpu_count() or 1)
        yield folder


def case_config(case: Case, data_dir: Path, **changes: Any) -> ConfigParser:
    """The config of a case: the shipped one, without validation and checkpoints, on that data.

    `changes` are dotted keys with ``__`` for the dot.
    """
    content = read_config(ROOT / "configs" / case.config)
    values = {
        "data_loader.args.data_dir": str(data_dir),
        "data_loader.args.input_dir": f"processed_{case.method}",
        "data_loader.args.batch_size": case.batch_size,
        "data_loader.args.validation_split": 0,
        "data_loader.args.shuffle": True,
        "trainer.monitor": "off",
        "trainer.epochs": 1000,
        "trainer.save_dir": str(data_dir.parent / "saved"),
        **{f"arch.args.{key}": value for key, value in case.arch.items()},
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    for key, value in values.items():
        set_key(content, key, value)
    config = ConfigParser(content)
    check_config(config)
    return config


def build_trainer(config: ConfigParser, device: torch.device) -> Trainer:
    """The Trainer as train.py makes it, with what it says to the console left out."""
    logging.disable(logging.INFO)
    config.make_run_folders()
    torch.manual_seed(config.seed)
    return make_trainer(config, device)


# One turn of a training loop; gives samples a second.
Turn = Callable[[], float]


class Batches(NamedTuple):
    """A model's input and targets, on its device."""

    inputs: list[Tensor]
    targets: list[Tensor]

    @property
    def items(self) -> int:
        return sum(len(target) for target in self.targets)


def in_memory(config: ConfigParser, device: torch.device, steps: int) -> Batches:
    """So many batches as a Trainer's model sees them, float32, augmented once."""
    loader = make_loader(config)
    frontend = loader.frontend().to(device).train()
    inputs, targets = [], []
    for _, batch in zip(range(steps), loader, strict=False):
        inputs.append(to_input(frontend, batch, device).clone())
        targets.append(batch.target.to(device))
    return Batches(inputs, targets)


class Parts(NamedTuple):
    """What a training loop needs beside its batches."""

    model: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer


def build_parts(config: ConfigParser, device: torch.device, channels_last: bool = True) -> Parts:
    """The same model, loss and optimizer as a Trainer's, of the same random numbers."""
    loader = make_loader(config)
    torch.manual_seed(config.seed)
    model = make_model(config).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    criterion = make_criterion(config, loader).to(device)
    return Parts(model.train(), criterion, make_optimizer(config, model.parameter_groups()))


def wait(device: torch.device) -> None:
    """Let a GPU come to the end of its work, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
