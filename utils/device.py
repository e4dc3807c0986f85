"""Devices, precision and processes."""

from __future__ import annotations

import contextlib
import os

import torch
from torch import nn
from torch.distributed import is_torchelastic_launched

from logger.log import get_logger
from utils.distributed import local_rank, local_world_size
from utils.errors import UserError

logger = get_logger(__name__)


def choose_device(n_gpu: int | None) -> torch.device:
    """The device to compute on.

    Args:
        n_gpu: what a config or ``-d`` asks for: 0 is the CPU, 1 or more a GPU; None takes one where there is one. One
            process uses one GPU; `torchrun` starts several.

    Raises:
        UserError: `torchrun` started more processes on this machine than it has GPUs.
    """
    found = torch.cuda.device_count()
    if n_gpu == 0:
        return torch.device("cpu")
    if found == 0:
        if n_gpu:
            logger.warning("%d GPU asked for, but there is no GPU: the CPU computes", n_gpu)
        return torch.device("cpu")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if n_gpu and n_gpu > processes:
        logger.warning(
            "%d GPUs are asked for, but one process uses one: start with torchrun --nproc_per_node=%d", n_gpu, n_gpu
        )
    if is_torchelastic_launched() and (here := local_world_size()) > found:
        # NCCL would refuse them, in a traceback. Of another launcher, each process may be shown a GPU of its own.
        gpus = "1 GPU" if found == 1 else f"{found} GPUs"
        raise UserError("torchrun", f"starts {here} processes for {gpus}", f"--nproc_per_node={found}, or -d cpu")
    return torch.device("cuda", local_rank() % found)


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" stands for: bf16 where the device computes it in hardware, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of a precision: fp32, bf16 or fp16."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def plain_module(model: nn.Module) -> nn.Module:
    """The model itself, without the wrapper that several processes put around it."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def make_deterministic(deterministic: bool) -> None:
    """Have CUDA compute the same bits in each run, at some cost of speed; the CPU does anyway. For scripts."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        if torch.cuda.is_available():
            # Its gradients are added up in any order, unless what is not deterministic is an error and no warning.
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_mem_efficient_sdp(False)
            torch.backends.cuda.enable_cudnn_sdp(False)
