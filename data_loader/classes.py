"""The classes of the four SPRSound tasks, and how an annotation maps to them."""

from __future__ import annotations

from collections.abc import Sequence

NORMAL = "Normal"
POOR_QUALITY = "Poor Quality"
ADVENTITIOUS = "Adventitious"
EVENT_TYPES = ("Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze & Crackle")
RECORD_TYPES = ("Normal", "Poor Quality", "CAS", "DAS", "CAS & DAS")

_SAME_AS = {"Wheeze+Crackle": "Wheeze & Crackle", "CAS+DAS": "CAS & DAS"}
_CLASSES = {
    (1, 1): (NORMAL, ADVENTITIOUS),
    (1, 2): EVENT_TYPES,
    (2, 1): (NORMAL, POOR_QUALITY, ADVENTITIOUS),
    (2, 2): RECORD_TYPES,
}


def resp_classes(task: int, level: int) -> tuple[str, ...]:
    """Class names of a task in the order of their indices.

    Normal is index 0; Poor Quality, where present (task 2), is index 1. Task 1 classifies events, task 2
    recordings; level 1 is coarse, level 2 fine (Zhang et al., IEEE TBioCAS 16(5), 2022).

    Raises:
        ValueError: there is no such task or level.

    >>> resp_classes(2, 1)
    ('Normal', 'Poor Quality', 'Adventitious')
    """
    if (task, level) not in _CLASSES:
        raise ValueError(f"there is no task {task}-{level}: choose from 1-1, 1-2, 2-1 and 2-2")
    return _CLASSES[task, level]


def has_poor_quality(classes: Sequence[str]) -> bool:
    """Whether class 1 is Poor Quality, which neither sensitivity nor specificity counts.

    >>> has_poor_quality(("Normal", "Poor Quality", "CAS")), has_poor_quality(("Normal", "Adventitious"))
    (True, False)
    """
    return list(classes[1:2]) == [POOR_QUALITY]


def canonical(label: str, known: tuple[str, ...]) -> str | None:
    """The one spelling of an annotated label, or None if it is none of the known ones.

    >>> canonical("Wheeze+Crackle", EVENT_TYPES)
    'Wheeze & Crackle'
    """
    label = " ".join(label.split())
    label = _SAME_AS.get(label, label)
    return label if label in known else None


def coarse(label: str) -> str:
    """The level-1 class of a level-2 class.

    >>> coarse("Fine Crackle"), coarse("Poor Quality")
    ('Adventitious', 'Poor Quality')
    """
    return label if label in (NORMAL, POOR_QUALITY) else ADVENTITIOUS
