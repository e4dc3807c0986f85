"""Several processes that train one model together, as `torchrun` starts them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """This process's number; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connect the processes for the time of the block; nothing to do for one process."""
    if world_size() == 1:
        yield
        return
    if device.type == "cuda":
        # What is sent as an object goes through the current device.
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        # A thread of gloo may still be letting go of the tensors of the last exchange, for which it needs Python's
        # lock; the destructor of the group waits for that thread and holds the lock. Sleeping hands the lock over.
        time.sleep(0.1)
        dist.destroy_process_group()


def gather(values: Tensor) -> Tensor:
    """The rows of all processes, ``(rows, ...)``, on the CPU, in the order of the processes' ranks."""
    if world_size() == 1:
        return values.cpu()
    parts: list[Tensor | None] = [None] * world_size()
    dist.all_gather_object(parts, values.cpu())
    return torch.cat(parts)


def first_process_says(value: str | None) -> str | None:
    """What process 0 passes, in every process."""
    if world_size() == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def same_buffers(module: nn.Module) -> None:
    """Give all processes the buffers of process 0, such as the running means of batch normalisation."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
