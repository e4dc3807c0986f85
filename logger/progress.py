"""Progress bars: live on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

# Seconds between two updates where standard error is no terminal: each one is a line there.
_LOG_SECONDS = 10.0


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar with rate and time left; `options` are tqdm's."""
    if not sys.stderr.isatty():
        options = {"mininterval": _LOG_SECONDS, "ascii": True, "ncols": 100, **options}
    return tqdm(items, **options)
