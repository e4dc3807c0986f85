"""What every adapter is: a function of a folder that gives a table, its parameters, and how the data is scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.arguments import check_arguments
from utils.errors import UserError
from utils.registry import Registry

adapters: Registry = Registry("adapter", package="data_loader.adapters")


@dataclass(frozen=True)
class Adapter:
    """A registered adapter.

    Attributes:
        name: in a config's `data_loader.args.adapter`.
        read: ``read(data_dir, **params)`` gives the table, see `register_adapter`.
        classes: in the order of their indices; None sorts those of the table.
        scoring: how a report scores the data, a name in `model.metric.SCORINGS`.
        groups: what a group is, in the plural, for a report.
    """

    name: str
    read: Callable[..., pd.DataFrame]
    classes: tuple[str, ...] | None = None
    scoring: str = "plain"
    groups: str = "groups"

    def checked(self, params: Mapping[str, Any], where: str) -> dict[str, Any]:
        """All parameters, the given ones over the defaults.

        Raises:
            UserError: an unknown parameter, a missing one, or a value of another type; names `where`.
        """
        return check_arguments(self.read, params, where, keyword_only=True)


def register_adapter(
    name: str, *, classes: tuple[str, ...] | None = None, scoring: str = "plain", groups: str = "groups"
) -> Callable[[Callable[..., pd.DataFrame]], Adapter]:
    """Decorator: make a function of a folder an adapter.

    The function takes the data folder and, keyword-only, its parameters. It returns one sound a row: `path` (relative
    to the folder) and `label`, and where the data set has them `split` ("train", "valid", "test"), `fold`, `group`
    (what must not be on both sides of a split: a patient, a recording), `start` and `end` (seconds in the file; empty
    for all of it). Further columns may serve a split by column. See `Adapter` for the arguments.
    """

    def decorate(function: Callable[..., pd.DataFrame]) -> Adapter:
        adapter = Adapter(name, function, classes, scoring, groups)
        adapters.add(name, adapter)
        return adapter

    return decorate


def read_metadata(path: Path, columns: Mapping[str, str], separator: str = ",") -> pd.DataFrame:
    """Some columns of a text table under other names: all as text, without blanks around it, an empty cell as "".

    Separators at the end of all rows, where the header has none, count for nothing.

    Args:
        columns: the new name of a column, and its name in the file.

    Raises:
        UserError: the file is missing or no table, or lacks a column; or rows have more cells than its header.
    """
    try:
        table = _read(path, dtype=str, keep_default_na=False, sep=separator)
    except FileNotFoundError as error:
        raise UserError(path, "there is no such file", "name the data set's folder with --data-dir") from error
    except (ValueError, OSError) as error:
        hint = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(path, f"is not a readable table: {error}", hint) from error
    table.columns = table.columns.astype(str).str.strip()
    table = table.loc[:, ~table.columns.duplicated()]
    if missing := [column for column in columns.values() if column.strip() not in table.columns]:
        hint = f"its columns: {', '.join(table.columns)}"
        hint += f"; is {separator!r} between them?" if len(table.columns) == 1 else ""
        raise UserError(path, f"lacks the column {missing[0]}", hint)
    return pd.DataFrame({name: table[column.strip()].str.strip() for name, column in columns.items()})


def _read(path: Path, **options: Any) -> pd.DataFrame:
    table = pd.read_csv(path, **options)
    if isinstance(table.index, pd.RangeIndex):
        return table
    # The first row has more cells than the header: pandas gives its first ones no name, and all others that of the
    # cell before.
    if (table.iloc[:, -table.index.nlevels :] != "").any(axis=None):
        hint = "name every column, and put quotes around a cell that holds a separator"
        raise UserError(path, "has rows of more cells than its header", hint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        return pd.read_csv(path, index_col=False, **options)
