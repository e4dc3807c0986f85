"""Files that are whole or not there: written aside in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.lock import lock

if TYPE_CHECKING:
    import numpy as np


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file aside; it takes its name only when the block ends without an error.

    A reader, or a run that comes after a crash, sees the old file or the new one, never half of one. Missing folders
    are made. What stood under `path` is replaced, a symbolic link too (not the file it points to).

    What a process that was killed was writing stays aside until `remove_leftovers`.

    Yields:
        an empty file in the same folder; the block has to write it. It has no suffix to rely on, so name the format
        where a library would guess it.

    Raises:
        OSError: the folder cannot be written, the disk is full; names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with aside.open("xb") as file:
            # Says that somebody is writing this; the kernel takes it back when the process dies.
            lock(file.fileno())
            yield aside
            os.fsync(file.fileno())
            aside.replace(path)
    except OSError as error:
        if error.filename is None or str(aside) in (str(error.filename), str(error.filename2)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        # After the rename there is nothing under that name. A folder that refused the file may refuse this too.
        with contextlib.suppress(OSError):
            aside.unlink()


def refuse_unwritable(path: Path, hint: str, is_folder: bool = False) -> None:
    """Refuse before the work what could not be written after it.

    Args:
        path: of a file, or of a folder of files; it and the folders above it need not be there yet.
        hint: what to do.

    Raises:
        UserError: names `path`.
    """
    if not is_folder and path.is_dir():
        raise UserError(path, "cannot be written: it is a folder", hint)
    folder = path if is_folder else path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.absolute().parent
    if not folder.is_dir():
        raise UserError(path, f"cannot be written: {folder} is no folder", hint)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(path, f"cannot be written: nothing may be put into {folder}", hint)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes were writing aside in a folder; what a living one is writing stays."""
    for path in folder.glob(f".{'[0-9a-f]' * 16}.tmp"):
        # What another process has removed or renamed by now, or what is not ours to open, is left alone.
        with contextlib.suppress(OSError), path.open("r+b") as file:
            if lock(file.fileno()):
                path.unlink()


def atomic_link(source: Path, path: Path) -> None:
    """Give a file a second name, which replaces what stood under it: a hard link, or a copy where there are none.

    Raises:
        OSError: the folder cannot be written, the disk is full; names `path`.
    """
    aside = path.parent / f".{secrets.token_hex(8)}.tmp"
    with source.open("rb") as file:
        # Of the file under both names: nobody removes the new one before it has its place.
        lock(file.fileno())
        try:
            os.link(source, aside)
            aside.replace(path)
        except OSError:
            with atomic_path(path) as copy:
                shutil.copyfile(source, copy)
        finally:
            # Renaming one of two names of a file to the other leaves both.
            with contextlib.suppress(OSError):
                aside.unlink()


def file_digest(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal digits.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(path, f"cannot be read: {error.strerror}") from error


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes as `atomic_path` does."""
    with atomic_path(path) as aside:
        aside.write_bytes(content)


def atomic_write_text(path: str | Path, content: str) -> None:
    """Write UTF-8 text as `atomic_path` does, newlines as they are; so are bytes of file names that are no UTF-8."""
    atomic_write_bytes(path, content.encode("utf-8", "surrogateescape"))


def atomic_write_npy(path: str | Path, array: np.ndarray) -> None:
    """Write a C-contiguous array as .npy as `atomic_path` does."""
    import numpy as np

    with atomic_path(path) as aside, aside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        # np.save would write it past Python, and not say why it could not.
        file.write(array.data)


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
