"""Locks that the kernel takes back when their process dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError


def lock(file: int) -> bool | None:
    """Lock an open file for as long as it is open.

    Returns:
        False where another process has locked it; None where the file system, as some of networks, has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def only_one(path: Path, hint: str) -> Iterator[int]:
    """A block that one process at a time may be in, where the file system has locks.

    Args:
        path: of the file to lock, which goes with the block; its folder has to be there.
        hint: what to do where another process is in the block.

    Raises:
        UserError: another process is in the block.
        OSError: the file cannot be made.

    Yields:
        the locked file. A process that inherits it is in the block too, until it ends.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("ab"))
        if lock(file.fileno()) is False or not _is_still(path, file.fileno()):
            # The second: it was another's until this moment, and is gone.
            raise UserError(path, "is locked: another process is at work there", hint)
        # Taken away while it is locked, so that nobody loses one that is his.
        stack.callback(path.unlink, missing_ok=True)
        yield file.fileno()


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
