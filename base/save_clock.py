"""When a checkpoint in the middle of an epoch is due."""

from __future__ import annotations

import math
import time


class SaveClock:
    """Counts steps and minutes since the last checkpoint.

    Args:
        minutes: between two checkpoints; None saves by no clock.
        steps: between two checkpoints; None does not count steps.
    """

    def __init__(self, minutes: float | None, steps: int | None) -> None:
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._most_steps = math.inf if steps is None else steps
        self.restart()

    def restart(self) -> None:
        """A checkpoint was written."""
        self._since = time.monotonic()
        self._steps = 0

    def step(self) -> bool:
        """Count a step; whether a checkpoint is due after it."""
        self._steps += 1
        return self._steps >= self._most_steps or time.monotonic() - self._since >= self._seconds
