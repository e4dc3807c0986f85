"""What every adapter is: a function of a folder that gives a table, its parameters, and how the data is scored."""

from __future__ import annotations

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

    Args:
        columns: the new name of a column, and its name in the file.

    Raises:
        UserError: the file is missing or no table, or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, sep=separator)
    except FileNotFoundError as error:
        raise UserError(path, "there is no such file", "name the data set's folder with --data-dir") from error
    except (ValueError, OSError) as error:
        raise UserError(path, f"is not a readable table: {error}") from error
    if missing := [column for column in columns.values() if column not in table.columns]:
        raise UserError(path, f"lacks the column {missing[0]}", f"its columns: {', '.join(map(str, table.columns))}")
    return pd.DataFrame({name: table[column].str.strip() for name, column in columns.items()})
