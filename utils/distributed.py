"""Several processes that train one model together, as `torchrun` starts them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import UserError

T = TypeVar("T")


def rank() -> int:
    """This process's number; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """How many processes there are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextlib.contextmanager
def process_group(device: torch.device, timeout: timedelta | None = None) -> Iterator[None]:
    """Connect the processes for the time of the block; nothing to do for one process.

    Args:
        device: that the exchanged tensors are on.
        timeout: how long one process waits for another; PyTorch's default, some minutes, if None.
    """
    if world_size() == 1:
        yield
        return
    if device.type == "cuda":
        # What is sent as an object goes through the current device.
        torch.cuda.set_device(device)
    # With GPUs, both: what processes agree on between steps must not wait for the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timeout)
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


def sum_of_all(value: Tensor) -> Tensor:
    """The sum of the processes' tensors."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def largest_of_all(values: Sequence[int]) -> list[int]:
    """Of each number, the largest that a process passes."""
    if world_size() == 1:
        return list(values)
    largest = torch.tensor(values)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def first_process_says(value: str | None) -> str | None:
    """What process 0 passes, in every process."""
    if world_size() == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def first_process_does(work: Callable[[], T]) -> T:
    """Do something in process 0 while the others wait.

    Returns:
        What `work` returned, in every process.

    Raises:
        UserError: of `work`, in process 0; the others exit with 1 and leave the line to it.
    """
    if world_size() == 1:
        return work()
    outcome: list = [None, None]
    error = None
    if rank() == 0:
        try:
            outcome[0] = work()
        except UserError as failed:
            outcome[1], error = "failed", failed
    dist.broadcast_object_list(outcome, src=0)
    if error:
        raise error
    if outcome[1]:
        sys.exit(1)
    return outcome[0]


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def my_share(items: Sequence[T]) -> Sequence[T]:
    """The items that this process does: every n-th of n processes'."""
    return items[rank() :: world_size()]


def join_shares(mine: list[T]) -> list[T]:
    """What the processes made of the items of `my_share`, one result an item, in the order of the items."""
    if world_size() == 1:
        return mine
    parts: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, mine)
    joined: list = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        joined[number :: world_size()] = part
    return joined


def same_buffers(module: nn.Module) -> None:
    """Give all processes the buffers of process 0, such as the running means of batch normalisation."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
