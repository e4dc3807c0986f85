"""BASELINE D: training the straightforward way, as the code beside a paper does it.

Single precision, tensors contiguous, one `torch.load` an item by DataLoader's default collate and two workers
(baseline B), loss and metrics read off after every batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from paper_code import PaperDataset
from torch import Tensor
from torch.utils.data import DataLoader
from training_case import Parts, Turn

from model import metrics
from trainer.building import make_criterion, make_loader, make_model
from utils.config import ConfigParser

STEPS = 1  # a turn: they take long


def prepare(config: ConfigParser, device: torch.device, steps: int, folder: Path) -> Turn:
    """A turn of one step; the first batch, with which the workers start, comes before the clock."""
    items = folder / "items"
    save_items(config, items)
    parts, loader = paper_parts(config, device), paper_loader(config, items)
    metric_ftns = {name: metrics.lookup(name, "metrics") for name in config["metrics"]}

    def turn() -> float:
        batches = iter(loader)
        paper_epoch(parts, islice(batches, 1), metric_ftns, device)
        start = time.perf_counter()
        paper_epoch(parts, islice(batches, STEPS), metric_ftns, device)
        return STEPS * loader.batch_size / (time.perf_counter() - start)

    return turn


def save_items(config: ConfigParser, folder: Path) -> None:
    """Write each training item as the model sees it, without augmentation: ``<folder>/<number>.pt``."""
    loader = make_loader(config)
    frontend = loader.frontend().eval()
    folder.mkdir(parents=True)
    for number in loader.train_indices.tolist():
        torch.save(frontend(loader.dataset[number][0][None])[0].clone(), folder / f"{number}.pt")


def paper_parts(config: ConfigParser, device: torch.device) -> Parts:
    """Model, loss and optimizer of a config, made without the program's settings."""
    loader = make_loader(config)
    torch.manual_seed(config.seed)
    model = make_model(config).to(device).train()
    section = config["optimizer"]
    optimizer = getattr(torch.optim, section["type"])(model.parameters(), **section.get("args", {}))
    return Parts(model, make_criterion(config, loader).to(device), optimizer)


def paper_loader(config: ConfigParser, folder: Path, order: Sequence[int] | None = None) -> DataLoader:
    """Baseline B over the files of `save_items`, shuffled, or in the given order."""
    dataset = make_loader(config).dataset
    files = [folder / f"{number}.pt" for number in range(len(dataset))]
    how = {"shuffle": True} if order is None else {"sampler": order}
    batch_size = config["data_loader"]["args"]["batch_size"]
    return DataLoader(PaperDataset(files, dataset.labels.tolist()), batch_size, num_workers=2, **how)


def paper_epoch(
    parts: Parts,
    batches: Iterable[tuple[Tensor, Tensor]],
    metric_ftns: Mapping[str, Callable[[Tensor, Tensor], float]],
    device: torch.device,
) -> list[float]:
    """Train on the batches; the loss of each."""
    model, criterion, optimizer = parts
    losses: list[float] = []
    sums = dict.fromkeys(metric_ftns, 0.0)
    for inputs, target in batches:
        inputs, target = inputs.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(inputs)
        loss = criterion(output, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for name, metric in metric_ftns.items():
            sums[name] += float(metric(output.detach(), target))
    return losses
