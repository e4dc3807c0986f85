"""BASELINE C: nothing but forward, loss, backward and step, over batches in memory."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from training_case import Batches, Parts, Turn, build_parts, in_memory, wait

from utils.config import ConfigParser
from utils.device import autocast, choose_precision


def prepare(config: ConfigParser, device: torch.device, steps: int, folder: Path) -> Turn:
    """A turn of so many steps."""
    batches, parts = in_memory(config, device, steps), build_parts(config, device)
    precision = choose_precision(config["trainer"]["precision"], device)
    return lambda: batches.items / bare_epoch(parts, batches, precision, device)


def bare_epoch(parts: Parts, batches: Batches, precision: str, device: torch.device) -> float:
    """Seconds of one pass over the batches."""
    model, criterion, optimizer = parts
    wait(device)
    start = time.perf_counter()
    for inputs, target in zip(*batches, strict=True):
        with autocast(precision, device):
            output = model(inputs)
        loss = criterion(output, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    wait(device)
    return time.perf_counter() - start
