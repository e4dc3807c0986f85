"""Making a Trainer of all that a config names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from base.run_files import later_than
from logger.log import get_logger
from logger.tensorboard import TensorboardWriter
from model import architectures, metrics
from trainer.building import make_criterion, make_loader, make_model
from trainer.distillation import make_distillation
from trainer.optimization import Schedule, make_optimizer, watched_figure
from trainer.starting import begin_from, start_path
from trainer.trainer import Trainer
from utils.config import ConfigParser
from utils.device import plain_module
from utils.distributed import rank, world_size
from utils.errors import UserError
from utils.versions import command_line, environment

logger = get_logger(__name__)


def make_trainer(config: ConfigParser, device: torch.device) -> Trainer:
    """Everything for one training run; the run's folders are made.

    With `config.resume`, the run goes on from that checkpoint.

    Raises:
        UserError: the data, the weights or the checkpoint cannot be used.
    """
    if world_size() > 1 and not config.get("data_loader.args.shuffle", True):
        # Each process takes every n-th item: without filling up, one might have a batch more than the others.
        raise UserError("data_loader.args.shuffle", "is false, but several processes train", "set it to true")
    if world_size() > 1 and architectures[config["arch"]["type"]].fits_at_once:
        raise UserError("arch.type", f"{config['arch']['type']} is fitted at once", "start one process, not several")
    loader = make_loader(config)
    valid_loader = loader.split_validation()
    n_valid = len(loader.valid_indices)
    logger.info("%d training items, %d validation items", len(loader.train_indices), n_valid)

    frontend = loader.frontend().to(device)
    resumed = config.resume is not None
    model = make_model(config, resumed or start_path(config) is not None, frontend.spec.shape)
    start = None if resumed else begin_from(config, model, loader)
    model = model.to(device, memory_format=torch.channels_last)
    n_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.debug("%s", model)
    logger.info("%s: %s trainable parameters", config["arch"]["type"], f"{n_trainable:,}")
    wrapped = model
    if world_size() > 1:
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=model.changes_by_epoch)
    optimizer = make_optimizer(config, model.parameter_groups())
    steps = -(-len(loader) // config.get("trainer.accumulate", 1))
    trainer = Trainer(
        wrapped,
        make_criterion(config, loader).to(device),
        {name: metrics.lookup(name, "metrics") for name in config["metrics"]},
        optimizer,
        config,
        device,
        data_loader=loader,
        frontend=frontend,
        schedule=Schedule(config, optimizer, steps, watched_figure(config)),
        valid_data_loader=valid_loader,
        distillation=make_distillation(config, loader),
        classes=loader.classes,
        data=loader.dataset.fingerprint(),
        origin={"command": command_line(), "environment": environment(), **({"start_from": start} if start else {})},
    )
    trainer.writer = _writer(config, trainer)
    return trainer


def _writer(config: ConfigParser, trainer: Trainer) -> TensorboardWriter:
    """The TensorBoard log, opened with what does not change: the config, the graph, examples."""
    enabled = config.get("trainer.tensorboard", True) and rank() == 0
    resumed = config.resume is not None
    if resumed and not trainer.is_left and later_than(config.save_dir, trainer.resumed_at):
        # Nothing comes to what the log has of later epochs: it keeps that.
        enabled = False
    writer = TensorboardWriter(
        config.log_dir,
        enabled,
        purge_epoch=trainer.start_epoch if resumed else None,
        purge_step=trainer.global_step + 1 if resumed else None,
    )
    if enabled and not resumed:
        writer.config(config.to_dict())
        inputs, labels = example_inputs(trainer)
        writer.examples(inputs, labels)
        if not plain_module(trainer.model).fits_at_once:
            # Such a model is nothing yet, and then one box.
            writer.graph(plain_module(trainer.model), inputs)
    if enabled and config.get("trainer.tensorboard_layers", False) and not plain_module(trainer.model).fits_at_once:
        trainer.shown = shown_item(trainer)
        if not resumed:
            writer.layers(plain_module(trainer.model), trainer.shown, step=0)
    return writer


def shown_item(trainer: Trainer) -> torch.Tensor:
    """Model input ``(1, ...)`` of the first validation item; without validation, of the first training item."""
    loader = trainer.data_loader
    items = loader.valid_indices if len(loader.valid_indices) else loader.train_indices
    return _inputs(trainer, [int(items[0])])


def example_inputs(trainer: Trainer, most: int = 8) -> tuple[torch.Tensor, list[str]]:
    """Model input of a few training items, of as many classes as there are, and their class names."""
    loader = trainer.data_loader
    labels = loader.dataset.labels
    by_class = [loader.train_indices[labels[loader.train_indices] == c] for c in range(len(loader.classes))]
    rounds = [items[r] for r in range(most) for items in by_class if r < len(items)]
    chosen = rounds[:most]
    return _inputs(trainer, [int(i) for i in chosen]), [loader.classes[labels[i]] for i in chosen]


def _inputs(trainer: Trainer, items: Sequence[int]) -> torch.Tensor:
    loader = trainer.data_loader
    batch = loader.collate_fn([loader.dataset[item] for item in items])
    frontend = trainer.frontend.eval()
    lengths = None if batch.lengths is None else batch.lengths.to(trainer.device)
    with torch.inference_mode():
        inputs = frontend(batch.data.to(trainer.device), lengths)
    return inputs.clone()
