"""Memory from the operating system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for its next tensors.

    glibc gives large blocks back to the system when they are freed, and the next tensor has each of its pages made and
    cleared anew. A step of LightCNN on the CPU takes a quarter longer for it, features almost twice as long. The
    process is as large as it was at its largest. Does nothing where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 64 * 2**20)
    # Threads would each keep their own; from one arena they share.
    mallopt(_ARENA_MAX, 1)
