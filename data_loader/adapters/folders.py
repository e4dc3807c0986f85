"""A folder a class."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import register_adapter
from data_loader.sound_files import SOUND_SUFFIXES, sounds_below
from data_loader.splits import SPLITS, split_name
from utils.errors import UserError


@register_adapter("folders")
def folders(data_dir: Path) -> pd.DataFrame:
    """``<class>/**/<file>``, or ``train/<class>/**/<file>`` and the like where all top folders are splits.

    Only folders that hold sounds count. The names of splits are those of `split_name`.
    """
    if not data_dir.is_dir():
        raise UserError(data_dir, "there is no such folder")
    parts = [path.relative_to(data_dir).parts for path in sounds_below(data_dir)]
    top = sorted({names[0] for names in parts if len(names) > 1})
    splits = [name for name in top if split_name(name) in SPLITS]
    if others := [name for name in top if splits and name not in splits]:
        # Nothing tells whether the ones are classes or the others no part of the set.
        what = f"holds folders of splits ({', '.join(splits)}) and others ({', '.join(others)})"
        raise UserError(data_dir, what, "leave only those of splits, or only those of classes; or name others alike")
    depth = 2 if splits else 1
    rows = [["/".join(names), names[depth - 1], names[0]] for names in parts if len(names) > depth]
    if not rows:
        suffixes = ", ".join(SOUND_SUFFIXES)
        raise UserError(data_dir, "holds no folder with sounds", f"put the files ({suffixes}) in a folder a class")
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    return table if splits else table.drop(columns="split")
