"""A folder a class."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import register_adapter
from data_loader.sound_files import SOUND_SUFFIXES, sounds_below
from utils.errors import UserError

_SPLITS = {"train", "valid", "val", "validation", "test"}


@register_adapter("folders")
def folders(data_dir: Path) -> pd.DataFrame:
    """``<class>/**/<file>``, or ``train/<class>/**/<file>`` and the like where all top folders are splits."""
    if not data_dir.is_dir():
        raise UserError(data_dir, "there is no such folder")
    top = {path.name for path in data_dir.iterdir() if path.is_dir() and not path.name.startswith(".")}
    split = "train" in top and top <= _SPLITS
    depth = 2 if split else 1
    rows = []
    for path in sounds_below(data_dir):
        *parents, _ = path.relative_to(data_dir).parts
        if len(parents) >= depth:
            rows.append([path.relative_to(data_dir).as_posix(), parents[depth - 1], parents[0]])
    if not rows:
        suffixes = ", ".join(SOUND_SUFFIXES)
        raise UserError(data_dir, "holds no folder with sounds", f"put the files ({suffixes}) in a folder a class")
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    return table if split else table.drop(columns="split")
