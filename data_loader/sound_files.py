"""The audio files of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def sounds_below(folder: Path) -> list[Path]:
    """All audio files below a folder, sorted, also those behind links to folders.

    Hidden files, which macOS leaves in archives, and hidden folders, such as a disk's trash, are left out. A folder
    that can be come to in several ways counts once: by its own name where it lies below `folder`, else by the first
    link to it. A link to a folder that holds the link is not followed.

    Raises:
        UserError: names a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    tops = [folder]
    while tops:
        # Links wait until all folders have been seen by their own names.
        links: list[Path] = []
        for top in tops:
            links += _walk(top, seen, found)
        tops = sorted(links)
    return sorted(found)


def _walk(top: Path, seen: set[str], found: list[Path]) -> list[Path]:
    """The links to folders below a folder; adds its folders to those that were `seen`, and their sounds to `found`."""
    links = []
    for where, below, files in os.walk(top, onerror=_refuse):
        real = os.path.realpath(where)
        if real in seen:
            # What is emptied here is not walked.
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = (Path(where, name) for name in below)
        links += [path for path in paths if path.is_symlink() and not Path(real).is_relative_to(path.resolve())]
        found += [Path(where, name) for name in files if _is_sound(where, name)]
    return links


def _is_sound(folder: str, name: str) -> bool:
    if name.startswith(".") or not name.lower().endswith(SOUND_SUFFIXES):
        return False
    try:
        return Path(folder, name).is_file()
    except OSError as error:
        # A folder's names may be readable, and what they name not.
        _refuse(OSError(error.errno, error.strerror, folder))


def _refuse(error: OSError) -> NoReturn:
    raise UserError(error.filename, f"cannot be read: {error.strerror}", "make it readable, or move it elsewhere")
