"""The table of labelled sounds that an adapter gives, checked."""

from __future__ import annotations

from pathlib import Path
from posixpath import normpath
from typing import Any

import pandas as pd

from data_loader.adapters import Adapter, adapters
from data_loader.splits import split_name
from utils.errors import UserError

_WHERE = "data_loader.args.adapter"


def lookup_adapter(adapter: str | dict[str, Any]) -> tuple[Adapter, dict[str, Any]]:
    """The adapter that a config names, and its parameters.

    Args:
        adapter: a name, or a name with parameters: ``{"name": "csv", "label": "species"}``.

    Raises:
        UserError: there is no such adapter or parameter.
    """
    params = {"name": adapter} if isinstance(adapter, str) else dict(adapter)
    found: Adapter = adapters.lookup(params.pop("name", ""), _WHERE)
    return found, found.checked(params, _WHERE)


def read_audio_table(
    data_dir: Path, adapter: str | dict[str, Any], test_fold: int | str | None = None
) -> pd.DataFrame:
    """One sound a row.

    Args:
        adapter: see `lookup_adapter`.
        test_fold: the items of this fold are the split "test".

    Returns:
        The columns wav_name and path (relative to the folder, one spelling a file), label, split ("train" unless the
        data set says otherwise, see `split_name`), start and end (seconds, float64; NaN for the file's end), group
        (str; each file is one unless the data set has them) or, where the groups are patients, patient_id, and what
        else the adapter gives, as text. But for paths, nothing has blanks around it.

    Raises:
        UserError: the adapter cannot read the folder, or what it gives is no such table, or audio files are missing.
    """
    found, params = lookup_adapter(adapter)
    given = found.read(data_dir, **params).reset_index(drop=True).astype(object)
    given = given.where(given.notna(), "").astype(str)
    # A patient " 7" is the patient "7". A path may have blanks in its file system; a CSV's were taken away.
    for column in given.columns.drop("path"):
        given[column] = given[column].str.strip()
    where = f"{data_dir} ({found.name})"
    if not len(given):
        raise UserError(where, "holds no labelled sound")
    for column in ("path", "label"):
        _refuse_rows(where, given[column].str.strip() == "", given, f"has no {column}")
    given["path"] = given["path"].map(normpath)
    groups = given["group"].where(given["group"] != "", given["path"]) if "group" in given else given["path"]
    split = given["split"] if "split" in given else pd.Series("train", given.index)
    table = pd.DataFrame({"wav_name": given["path"], "patient_id" if found.groups == "patients" else "group": groups})
    table["split"] = split.map(split_name)
    table["start"], table["end"] = (_seconds(where, given, column) for column in ("start", "end"))
    table["start"] = table["start"].fillna(0.0)
    wrong = (table["start"] < 0) | (table["end"] <= table["start"])
    _refuse_rows(where, wrong, given, "ends before it begins, or begins before its file")
    others = [column for column in given.columns if column not in table and column not in ("group", "path")]
    table = table.join(given[[*others, "path"]])
    if test_fold is not None:
        in_fold = _in_column(where, table, "fold", test_fold)
        table.loc[in_fold, "split"] = "test"
    paths = table["path"].unique()
    if missing := [path for path in paths if not (data_dir / path).is_file()]:
        what = f"there is no such file, nor {len(missing) - 1:,} more of {len(paths):,}"
        what = what if len(missing) > 1 else "there is no such file"
        raise UserError(data_dir / missing[0], what, "is the download whole, and --data-dir the data set's folder?")
    return table


def rows_of(table: pd.DataFrame, column: str, value: Any) -> pd.Series:
    """Which rows have a value, as text, in a column.

    Raises:
        UserError: there is no such column, or no row has it.
    """
    return _in_column("data_loader.args.validation_split", table, column, value)


def _in_column(where: str, table: pd.DataFrame, column: str, value: Any) -> pd.Series:
    # A config may hold a list in its place, which pandas does not look for.
    if not isinstance(column, str) or column not in table:
        raise UserError(where, f"the data has no column {column}", f"it has {', '.join(table.columns)}")
    found = table[column].astype(str) == str(value)
    if not found.any():
        values = sorted(table[column].astype(str).unique())
        shown = ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
        raise UserError(where, f"no item has {column} {value}", f"there are {shown}")
    return found


def _seconds(where: str, given: pd.DataFrame, column: str) -> pd.Series:
    if column not in given:
        return pd.Series(float("nan"), given.index)
    text = given[column]
    seconds = pd.to_numeric(text, errors="coerce")
    # Infinity is a number to pandas.
    wrong = (text != "") & ~seconds.between(-1e9, 1e9)
    _refuse_rows(where, wrong, given, f"has no number of seconds as its {column}")
    return seconds


def _refuse_rows(where: str, wrong: pd.Series, given: pd.DataFrame, what: str) -> None:
    if wrong.any():
        row = given[wrong].iloc[0].to_dict()
        raise UserError(where, f"a row {what}: {row}", "mend the table")
