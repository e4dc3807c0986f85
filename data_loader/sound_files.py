"""The audio files of a folder."""

from __future__ import annotations

from pathlib import Path

SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def sounds_below(folder: Path) -> list[Path]:
    """All audio files below a folder, sorted; hidden ones, which macOS leaves in archives, are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
