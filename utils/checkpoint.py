"""Reading and writing checkpoint files."""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.arguments import describe, matches
from utils.errors import UserError
from utils.files import atomic_path
from utils.strict_json import check_plain

CHECKPOINT_VERSION = 1
_TYPES = {"config": dict[str, Any], "epoch": int, "state_dict": dict[str, Any], "classes": list[str], "input": dict}
# torch.serialization.MAGIC_NUMBER, as it is pickled.
_OLD_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
# What zipfile and the unpickler raise on bytes that are no checkpoint, as found by trying.
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    MemoryError,
    AssertionError,
    ArithmeticError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    pickle.UnpicklingError,
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
        with atomic_path(path) as aside, aside.open("wb") as file:
            if isinstance(checkpoint, bytes):
                file.write(checkpoint)
            else:
                torch.save({"version": CHECKPOINT_VERSION, **checkpoint}, file)
    except (OSError, RuntimeError) as error:
        # PyTorch says at which byte it stopped; what the file system said stands behind that.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = (cause.strerror if isinstance(cause, OSError) else None) or error
        raise UserError(
            path, f"cannot be written: {reason}", "free some space, or take another trainer.save_dir"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project, tensors and plain values only, onto the CPU.

    Raises:
        UserError: the file is missing, damaged, holds code, or is no checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(path, "there is no such checkpoint")
    damaged = "is not a checkpoint, or is damaged", "take another one, such as an earlier one of the run"
    if not zipfile.is_zipfile(path):
        raise UserError(path, *damaged)
    checkpoint = load_tensors(path, *damaged)
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= {"version", *_TYPES}:
        raise UserError(path, "is not a checkpoint of this project", "expected one that train.py wrote")
    if not matches(checkpoint["version"], int) or checkpoint["version"] != CHECKPOINT_VERSION:
        raise UserError(path, f"is of version {checkpoint['version']}, this is {CHECKPOINT_VERSION}")
    if wrong := [key for key, kind in _TYPES.items() if not matches(checkpoint[key], kind)]:
        raise UserError(path, f"its {wrong[0]} is not {describe(_TYPES[wrong[0]])}", damaged[1])
    if not is_state_dict(checkpoint["state_dict"]):
        raise UserError(path, "its state_dict holds other things than names and tensors", damaged[1])
    for key in ("config", "input"):
        try:
            check_plain(checkpoint[key])
        except ValueError as error:
            raise UserError(path, f"its {key} is no plain description: {error}", damaged[1]) from error
    return checkpoint


def load_tensors(path: Path, unreadable: str, hint: str) -> Any:
    """What torch.save wrote: tensors and plain values, on the CPU. Nothing in the file is run.

    Args:
        unreadable, hint: what to say of a file that is none or is damaged.

    Raises:
        UserError: `unreadable`; or the file holds objects that could run code.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        else:
            _check_old_format(path)
        with warnings.catch_warnings():
            # On what an unpickler finds odd; it is refused below where it matters.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL ([\w.]+)", str(error))):
            what = f"is not loaded: it holds {code[1]}, and objects other than tensors could run code"
            raise UserError(path, what, "ask for the tensors alone, best as .safetensors") from error
        raise UserError(path, unreadable, hint) from error


def is_state_dict(value: Any) -> bool:
    """Whether this is names and tensors of real numbers, in memory as large as their shapes say.

    A file may repeat one number a billion times.
    """
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.is_complex() or tensor.is_quantized)
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        for name, tensor in value.items()
    )


def _check_archive(path: Path) -> None:
    """torch.load compares no checksums: it takes weights with flipped bits as they are; and it unpacks a bomb."""
    with zipfile.ZipFile(path) as archive:
        # torch.save compresses nothing.
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("it claims more than it holds")
        if broken := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {broken}")


def _check_old_format(path: Path) -> None:
    """Before PyTorch 1.6, files were pickles behind a magic number; of anything else the unpickler takes sizes."""
    with path.open("rb") as file:
        if _OLD_MAGIC not in file.read(32):
            raise pickle.UnpicklingError("no magic number")


def load_weights(model: nn.Module, state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load all weights of a checkpoint into a model.

    Raises:
        UserError: see `refuse_other_weights`. The model is then unchanged. Or the model itself refuses them by a
            ValueError.
    """
    refuse_other_weights(model, state_dict, path)
    try:
        model.load_state_dict(state_dict)
    except ValueError as error:
        raise UserError(path, f"does not fit the model: {error}", "take another checkpoint") from error


def refuse_other_weights(model: nn.Module, state_dict: Mapping[str, Any], path: Path) -> None:
    """Refuse weights that are not those of a model, whose tensors may be on the meta device.

    An own tensor ``(0,)`` says nothing of how long it comes out of the training.

    Raises:
        UserError: a tensor is missing, left over, or of another shape or kind; lists them.
    """
    own = model.state_dict()
    problems = [f"no {name}" for name in own if name not in state_dict]
    problems += [f"unknown {name}" for name in state_dict if name not in own]
    problems += [
        f"{name} is {found}, not {wanted}"
        for name in own
        if name in state_dict and (found := _kind(state_dict[name])) != (wanted := _kind(own[name], state_dict[name]))
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(path, f"does not fit the model: {'; '.join(problems[:5])}{more}", "is it of another config?")


def _kind(tensor: torch.Tensor, saved: torch.Tensor | None = None) -> str:
    """The shape of a tensor, and its dtype and layout where they are not the usual ones.

    The shape of an empty one ``(0,)`` is that of a list that was `saved` for it.
    """
    unusual = {tensor.dtype, tensor.layout} - {torch.float32, torch.strided}
    of_any_length = saved is not None and tuple(tensor.shape) == (0,) and saved.ndim == 1
    shape = tuple(saved.shape if of_any_length else tensor.shape)
    return " ".join([str(shape), *sorted(str(kind).removeprefix("torch.") for kind in unusual)])
