"""Validation on what the training has not seen: later dates, other ages, other noise.

A split by patient draws both sides from the same days, ages and rooms. Here the patients stand in the order of one of
these, and the validation is an end or a stretch of that order: how far the score falls says how a model will hold
elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_loader.noise import noise_of_rows
from data_loader.splits import Split, ValidationSplit, split_in_order
from logger.log import get_logger
from utils.errors import UserError

logger = get_logger(__name__)

# What a split may go by, and the column of the tables that it takes.
SHIFTS = {"date": "rec_id", "age": "age", "noise": "path"}
_UNITS = {"date": "recording numbers", "age": "years", "noise": "dB of noise"}


def shifted_split(
    table: pd.DataFrame, patients: np.ndarray, data_dir: Path, validation_split: ValidationSplit, split_by: str
) -> Split:
    """Split items so that the validation's patients differ from the training's in date, age or noise.

    A patient has the median of their recordings: of the recording numbers, as far as these tell the date ("date"), of
    the ages in years ("age"), of the noise levels, see `noise_level` ("noise"). See `split_in_order` for the sides.

    Args:
        table: one item a row.
        patients: ``(items,)`` str, whose item it is.
        data_dir: where the audio is; read for "noise" alone.
        validation_split, split_by: see `RespDataLoader`.

    Raises:
        UserError: the data set says nothing of it, its audio cannot be read, or see `split_in_order`.
    """
    if validation_split == 0:
        return Split(np.arange(len(table)), np.arange(0))
    column = SHIFTS[split_by]
    if column not in table:
        what = f"is {split_by!r}, but this data set has no column {column}"
        raise UserError("data_loader.args.split_by", what, "choose another one")
    values = noise_of_rows(table, data_dir) if split_by == "noise" else table[column].to_numpy(dtype=np.float64)
    # A recording counts once, however many events it has.
    recordings = pd.DataFrame({"path": table["path"], "patient": patients, "value": values}).drop_duplicates("path")
    medians = recordings.groupby("patient")["value"].median()
    of_items = medians.loc[patients].to_numpy()
    split = split_in_order(of_items, patients, validation_split)
    inside = of_items[split.valid]
    logger.info("split_by %s: %s %g to %g validate", split_by, _UNITS[split_by], inside.min(), inside.max())
    return split
