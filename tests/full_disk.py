"""A disk that takes no more, for tests: no file may grow beyond a size."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A block in which the kernel refuses to write beyond `size` bytes of any file.

    The error is EFBIG, "File too large", and comes from the same calls, after the same half-written blocks, as ENOSPC.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
