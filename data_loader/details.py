"""What is known of an item beside its class: its class at the finer level, or what is heard in each of its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_loader.batching import UNKNOWN
from data_loader.classes import resp_classes
from data_loader.tables import read_table

# What a frame is asked for: any annotated event, a continuous (CAS) and a discontinuous (DAS) adventitious sound.
CONTINUOUS = ("Rhonchi", "Wheeze", "Stridor", "Wheeze & Crackle")
DISCONTINUOUS = ("Coarse Crackle", "Fine Crackle", "Wheeze & Crackle")
FRAME_DIM = 3


def fine_labels(table: pd.DataFrame, task: int) -> np.ndarray:
    """``(items,)`` int64: the class at level 2 of each item of a task's table."""
    return pd.Index(resp_classes(task, 2)).get_indexer(table[f"label_{task}2"]).astype(np.int64)


class FrameTargets:
    """What is heard in each frame of recordings, by their annotated events.

    Args:
        data_dir: the data folder; the table of events in it says what is where.
        recordings: the table of recordings, in the order of their numbers here.
        frames: of an item.
        hop_ms: milliseconds from frame to frame.

    Raises:
        UserError: there is no table of events.
    """

    def __init__(self, data_dir: Path, recordings: pd.DataFrame, frames: int, hop_ms: float) -> None:
        self._heard = np.zeros((len(recordings), frames, FRAME_DIM), dtype=bool)
        events = read_table(data_dir, 1)
        rows = pd.Index(recordings["path"]).get_indexer(events["path"])
        firsts = (events["start_ms"] / hop_ms).round().astype(int)
        lasts = np.maximum((events["end_ms"] / hop_ms).round().astype(int), firsts + 1)
        continuous, discontinuous = (events["label_12"].isin(names) for names in (CONTINUOUS, DISCONTINUOUS))
        for row, first, last, *kinds in zip(rows, firsts, lasts, continuous, discontinuous, strict=True):
            if row >= 0:
                self._heard[row, first:last] |= (True, *kinds)

    def __getitem__(self, items: np.ndarray) -> np.ndarray:
        """``(items, frames, 3)`` float32, 1 where it is heard: an event, a continuous, a discontinuous sound."""
        return self._heard[items].astype(np.float32)


def unknown_outside(targets: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Frame targets ``(items, frames, k)``, unknown where ``inside (items, frames)`` is false."""
    return np.where(inside[..., None], targets, np.float32(UNKNOWN))
