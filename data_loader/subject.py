"""What a data set asks a model to tell apart, for whoever reports on it."""

from __future__ import annotations

from dataclasses import dataclass

from data_loader.classes import resp_classes


@dataclass(frozen=True)
class Subject:
    """What is classified.

    Attributes:
        task: a name for it: "2-1", "urbansound8k".
        scoring: how it is scored, a name in `model.metric.SCORINGS`.
        groups: what the items of one origin belong to, in the plural; intervals are over these.
    """

    task: str
    scoring: str
    groups: str = "patients"

    @property
    def group_column(self) -> str:
        """Where a table has the group of each item."""
        return "patient_id" if self.groups == "patients" else "group"


def resp_subject(task: int, level: int) -> Subject:
    """Of one of SPRSound's tasks.

    Raises:
        ValueError: there is no such task or level.
    """
    resp_classes(task, level)
    return Subject(f"{task}-{level}", f"task{task}")
