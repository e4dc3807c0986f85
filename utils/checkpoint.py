"""Reading and writing checkpoint files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import UserError
from utils.files import atomic_path

CHECKPOINT_VERSION = 1
_KEYS = {"version", "config", "epoch", "state_dict", "classes", "input"}
# What zipfile and the unpickler raise on bytes that are no checkpoint, as found by trying.
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def pack_checkpoint(checkpoint: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint file: a copy, which training on does not change."""
    buffer = io.BytesIO()
    torch.save({"version": CHECKPOINT_VERSION, **checkpoint}, buffer)
    return buffer.getvalue()


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any] | bytes) -> None:
    """Write a checkpoint, or one that `pack_checkpoint` packed, aside and rename it.

    Raises:
        UserError: the file cannot be written; the one that stood there stays.
    """
    try:
        with atomic_path(path) as aside:
            if isinstance(checkpoint, bytes):
                aside.write_bytes(checkpoint)
            else:
                torch.save({"version": CHECKPOINT_VERSION, **checkpoint}, aside)
    except (OSError, RuntimeError) as error:
        raise UserError(
            path, f"cannot be written: {error}", "free some space, or take another trainer.save_dir"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project, tensors and plain values only, onto the CPU.

    Raises:
        UserError: the file is missing, damaged, holds code, or is no checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(path, "there is no such checkpoint")
    damaged = UserError(
        path, "is not a checkpoint, or is damaged", "take another one, such as an earlier one of the run"
    )
    try:
        # torch.load compares no checksums: it takes weights with flipped bits as they are.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise damaged
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(path, "is not loaded: it holds objects other than tensors, which could run code") from error
    except _UNREADABLE as error:
        raise damaged from error
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= _KEYS:
        raise UserError(path, "is not a checkpoint of this project", "expected one that train.py wrote")
    if checkpoint["version"] != CHECKPOINT_VERSION:
        raise UserError(path, f"is of version {checkpoint['version']}, this is {CHECKPOINT_VERSION}")
    return checkpoint


def load_weights(model: nn.Module, state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load all weights of a checkpoint into a model.

    Raises:
        UserError: a tensor is missing, left over or of another shape; lists them. The model is then unchanged.
    """
    own = model.state_dict()
    problems = [f"no {name}" for name in own if name not in state_dict]
    problems += [f"unknown {name}" for name in state_dict if name not in own]
    problems += [
        f"{name} is {tuple(state_dict[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state_dict and state_dict[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(path, f"does not fit the model: {'; '.join(problems[:5])}{more}", "is it of another config?")
    model.load_state_dict(state_dict)
