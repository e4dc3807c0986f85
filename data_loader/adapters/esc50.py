"""ESC-50 (Piczak 2015): 2,000 clips of 5 seconds, 50 classes, 5 folds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import read_metadata, register_adapter


@register_adapter("esc50", groups="recordings")
def esc50(data_dir: Path, *, esc10: bool = False) -> pd.DataFrame:
    """``meta/esc50.csv`` and ``audio/<clip>``; the clips of a recording (src_file) are a group.

    Args:
        esc10: only the ten classes of ESC-10.
    """
    columns = {"path": "filename", "label": "category", "fold": "fold", "group": "src_file", "esc10": "esc10"}
    table = read_metadata(data_dir / "meta" / "esc50.csv", columns)
    if esc10:
        table = table[table["esc10"] == "True"]
    return table.drop(columns="esc10").assign(path="audio/" + table["path"])
