"""Reading and writing checkpoint files."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import UserError
from utils.files import atomic_path

CHECKPOINT_VERSION = 1
_KEYS = {"version", "config", "epoch", "state_dict", "classes", "input"}


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint aside and rename it.

    Raises:
        UserError: the file cannot be written; the one that stood there stays.
    """
    try:
        with atomic_path(path) as aside:
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
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            raise UserError(
                path, "is not loaded: it holds objects other than tensors, which could run code"
            ) from error
        raise UserError(path, "is not a checkpoint, or is damaged", "take an earlier one of the same run") from error
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
