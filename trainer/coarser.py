"""One level coarser than what was trained: the classes of level 2, put together to those of level 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_loader.classes import coarse, resp_classes
from data_loader.subject import Subject, resp_subject
from model.decision import Priors
from model.ensemble import merge
from trainer.group import Group


@dataclass(frozen=True)
class Coarser:
    """How fine classes make coarse ones: their probabilities add up.

    Attributes:
        classes: names of the coarse ones, in order.
        groups: for each, the indices of its fine classes.
        subject: what is classified at the coarse level.
    """

    classes: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    subject: Subject

    def probabilities(self, fine: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(items, classes)`` of ``(items, fine classes)``."""
        return merge(fine, self.groups)

    def target(self, fine: NDArray[np.int64]) -> NDArray[np.int64]:
        """Coarse class indices ``(items,)`` of fine ones."""
        of_fine = np.empty(sum(map(len, self.groups)), np.int64)
        for number, group in enumerate(self.groups):
            of_fine[list(group)] = number
        return of_fine[fine]

    def priors(self, fine: Priors) -> Priors:
        """Those of the coarse classes."""
        pi, q = (self.probabilities(values[None])[0] for values in (fine.pi, fine.q))
        return Priors.of(pi, q)


def coarser_of(group: Group) -> Coarser | None:
    """What a group's config asks for with ``"level": 1``; None where it does not."""
    if group.level is None:
        return None
    task = group.first["data_loader"]["args"]["task"]
    classes, fine = resp_classes(task, group.level), [coarse(name) for name in resp_classes(task, 2)]
    groups = tuple(tuple(n for n, name in enumerate(fine) if name == own) for own in classes)
    return Coarser(classes, groups, resp_subject(task, group.level))
