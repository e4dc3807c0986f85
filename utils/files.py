"""Files that are whole or not there: written aside in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file aside; it takes its name only when the block ends without an error.

    A reader, or a run that comes after a crash, sees the old file or the new one, never half of one. Missing folders
    are made. What stood under `path` is replaced, a symbolic link too (not the file it points to).

    Yields:
        a path in the same folder that does not exist yet; the block has to write it. It has no suffix to rely on, so
        name the format where a library would guess it.

    Raises:
        OSError: the folder cannot be written, the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        yield aside
        # Opened for writing because some file systems refuse to sync a file opened for reading.
        with aside.open("r+b") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        # After the rename there is nothing under that name.
        aside.unlink(missing_ok=True)


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes as `atomic_path` does."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def atomic_write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text as `atomic_path` does, newlines as they are; so are bytes of file names that are no UTF-8."""
    atomic_write_bytes(path, content.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, data: Any) -> None:
    """Write indented UTF-8 JSON as `atomic_path` does.

    Paths become strings; arrays and scalars of NumPy and PyTorch become lists and numbers.

    Raises:
        ValueError: NaN or infinity somewhere, which JSON does not have. Nothing is written.
        TypeError: something that JSON does not have. Nothing is written.
    """
    text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False, default=_plain) + "\n"
    # What is no UTF-8, as file names may hold, becomes the escape that JSON has for it.
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has nothing for {type(value).__name__}: {value!r}")
