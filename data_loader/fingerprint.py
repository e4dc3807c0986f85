"""Digests of what a data set holds, to notice later that it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from utils.errors import UserError

# Of a SHA-256: enough to notice a change, and short in a table.
_HEX_DIGITS = 16
# Where files lie and how a whole table is numbered may change with the data staying what it is.
_NOT_CONTENT = ["path", "event_id"]


def with_digests(table: pd.DataFrame, digests: Mapping[str, str]) -> pd.DataFrame:
    """A table with the column `digest`: of the bytes of each row's audio file, see `Tables.digests`."""
    return table.assign(digest=[digests[path][:_HEX_DIGITS] for path in table["path"]])


def split_fingerprints(table: pd.DataFrame, origin: str = "") -> dict[str, str]:
    """A digest of the items of each split: names, patients, cuts, labels and, where the table has them, audio.

    They are apart, so that a release that comes to the data folder later changes no other.

    Args:
        origin: what else all items depend on.
    """
    content = table.drop(columns=_NOT_CONTENT, errors="ignore")
    return {
        str(split): hashlib.sha256((rows.to_csv(index=False) + origin).encode(errors="surrogateescape")).hexdigest()
        for split, rows in content.groupby("split")
    }


def refuse_changed_audio(table: pd.DataFrame, data_dir: Path) -> None:
    """Refuse audio files that are not those of which the table was made.

    Files that are not there are left to who reads them: features of a store are used without.

    Raises:
        UserError: names the first one that changed.
    """
    if "digest" not in table:
        return
    files = table.drop_duplicates("path")
    paths = [data_dir / path for path in files["path"]]
    with ThreadPoolExecutor() as pool:
        changed = list(pool.map(_differs, paths, files["digest"]))
    if any(changed):
        path = paths[changed.index(True)]
        what = "has other samples than when preprocess.py read it"
        raise UserError(path, what, "put the file back, or run preprocess.py again and train anew")


def _differs(path: Path, digest: str) -> bool:
    try:
        # From a pipe or a device nothing may ever come.
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()[:_HEX_DIGITS] != digest
    except OSError as error:
        raise UserError(path, f"cannot be read: {error.strerror}") from error
