"""Any metadata CSV, its columns by name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import read_metadata, register_adapter


@register_adapter("csv")
def csv_file(
    data_dir: Path,
    *,
    file: str = "metadata.csv",
    audio_dir: str = "",
    path: str = "path",
    label: str = "label",
    split: str | None = None,
    fold: str | None = None,
    group: str | None = None,
    start: str | None = None,
    end: str | None = None,
    separator: str = ",",
) -> pd.DataFrame:
    """A row a sound; blanks around a cell are left out, and an item without a split is for training.

    Args:
        file: the CSV, in the data folder.
        audio_dir: the folder that its paths are relative to, in the data folder.
        path, label, split, fold, group, start, end: the names of its columns; null where it has none. Times are in
            seconds.
        separator: between its columns.
    """
    columns = {"path": path, "label": label, "split": split, "fold": fold, "group": group, "start": start, "end": end}
    table = read_metadata(data_dir / file, {name: column for name, column in columns.items() if column}, separator)
    if audio_dir:
        table["path"] = audio_dir.rstrip("/") + "/" + table["path"]
    return table
