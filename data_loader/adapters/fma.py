"""FMA (Defferrard et al. 2017, arXiv 1612.01840): music clips of 30 seconds by genre, with its own split."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import pandas as pd

from data_loader.adapters.adapter import register_adapter
from utils.errors import UserError

_SUBSETS = ("small", "medium", "large")
# The first two rows of the header, which together name a column.
_COLUMNS = {
    ("set", "split"): "split",
    ("set", "subset"): "subset",
    ("track", "genre_top"): "label",
    ("artist", "id"): "group",
}


@register_adapter("fma", groups="artists")
def fma(
    data_dir: Path,
    *,
    subset: Literal["small", "medium", "large"] = "small",
    leave_out: tuple[int, ...] = (98565, 98567, 98569, 99134, 108925, 133297),
) -> pd.DataFrame:
    """``fma_metadata/tracks.csv`` and ``fma_<subset>/000/000002.mp3``; tracks without a top genre are left out.

    Args:
        subset: small, medium (which holds small) or large (which holds medium).
        leave_out: numbers of tracks; by default those of the published archives that hold next to no audio.
    """
    path = data_dir / "fma_metadata" / "tracks.csv"
    table = _tracks(path)
    wanted = table["subset"].isin(_SUBSETS[: _SUBSETS.index(subset) + 1])
    table = table[wanted & (table["label"] != "") & ~table["track"].isin([str(number) for number in leave_out])]
    number = table["track"].str.zfill(6)
    files = f"fma_{subset}/" + number.str[:3] + "/" + number + ".mp3"
    return table.drop(columns=["track", "subset"]).assign(path=files)


def _tracks(path: Path) -> pd.DataFrame:
    """The columns that are wanted, as text; the first column, under its header's third row, is the track's number."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = [next(reader, []) for _ in range(3)]
        named = {_COLUMNS.get(pair): place for place, pair in enumerate(zip(header[0], header[1], strict=False))}
        if missing := [pair for pair, name in _COLUMNS.items() if name not in named]:
            raise UserError(path, f"lacks the column {' '.join(missing[0])}", "take tracks.csv of fma_metadata.zip")
        places = {"track": 0} | {name: place for name, place in named.items() if name}
        # The whole file is 260 MB.
        table = pd.read_csv(
            path, skiprows=3, header=None, usecols=list(places.values()), dtype=str, keep_default_na=False
        )
    except FileNotFoundError as error:
        raise UserError(path, "there is no such file", "name the folder that holds fma_metadata") from error
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(path, f"is not a readable table: {error}") from error
    return pd.DataFrame({name: table[place] for name, place in places.items()})
