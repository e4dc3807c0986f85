"""BASELINE C: nothing but forward, loss, backward and step, over batches in memory."""

from __future__ import annotations

import time

import torch
from training_case import Batches, Parts, wait

from utils.device import autocast


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
