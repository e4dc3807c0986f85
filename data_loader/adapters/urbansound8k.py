"""UrbanSound8K (Salamon, Jacoby and Bello 2014): 8,732 slices of field recordings, 10 classes, 10 folds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_loader.adapters.adapter import read_metadata, register_adapter


@register_adapter("urbansound8k", groups="recordings")
def urbansound8k(data_dir: Path) -> pd.DataFrame:
    """``metadata/UrbanSound8K.csv`` and ``audio/fold<k>/<slice>``; the slices of a recording (fsID) are a group.

    Its columns start and end are of the recording, not of the slice, which is a whole file.
    """
    columns = {"path": "slice_file_name", "label": "class", "fold": "fold", "group": "fsID"}
    table = read_metadata(data_dir / "metadata" / "UrbanSound8K.csv", columns)
    return table.assign(path="audio/fold" + table["fold"] + "/" + table["path"])
