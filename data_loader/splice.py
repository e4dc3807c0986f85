"""Recordings made of two: a stretch of one in the other, with the class that follows from what is heard then."""

from __future__ import annotations

import torch
from torch import Tensor

from data_loader.batching import Batch
from data_loader.classes import NORMAL, POOR_QUALITY, coarse, resp_classes

# The share of the shorter recording that a stretch is at least and at most.
_SHARES = (0.2, 0.6)
# What is left of an event in fewer frames than these (0.1 s of `multimel`) is not heard.
_LEAST_FRAMES = 8

# The index of Poor Quality, at either level.
_SILENT = resp_classes(2, 1).index(POOR_QUALITY)


class Splice:
    """Puts a stretch of another recording of the batch in the place of one's own, in some of its recordings.

    As CutMix does with pictures (Yun et al., arXiv 1905.04899); but the class is not mixed: SPRSound's annotation of
    a recording follows from its events, and what is heard in each frame is known.

    Args:
        share: of the recordings that get a stretch of another one.
        level: of the classes of task 2.
        filtered: the data is without Poor Quality. A recording in which nothing would be heard is then left as it is:
            it would be the only one of a class that is neither validated nor tested.
    """

    def __init__(self, share: float, level: int, filtered: bool = False) -> None:
        self.share, self.filtered = share, filtered
        self._classes = torch.tensor(_classes_of_heard(level))

    def __call__(self, batch: Batch) -> Batch:
        """A new batch; without any splicing, the same one, and no random number is drawn.

        Args:
            batch: data ``(batch, channels, bands, frames)``, whose last channel is above 0 within the recording;
                details ``(batch, frames, 3)``: an event, a continuous, a discontinuous sound, negative outside.
        """
        if not self.share:
            return batch
        lengths = (batch.data[:, -1, 0] > 0).sum(dim=1)
        others = torch.randperm(len(lengths))
        chosen = torch.rand(len(lengths)) < self.share
        shortest = torch.minimum(lengths, lengths[others])
        least, most = _SHARES
        extents = (least + (most - least) * torch.rand(len(lengths))) * shortest
        firsts = (torch.rand(len(lengths)) * (shortest - extents)).long().tolist()
        data, details, target = batch.data.clone(), batch.details.clone(), batch.target.clone()
        for row in chosen.nonzero()[:, 0].tolist():
            other, stretch = int(others[row]), slice(firsts[row], firsts[row] + int(extents[row]))
            data[row, ..., stretch] = batch.data[other, ..., stretch]
            details[row, stretch] = batch.details[other, stretch]
        target[chosen] = self._target(details[chosen])
        if self.filtered:
            silent = chosen & (target == _SILENT)
            for new, old in ((data, batch.data), (details, batch.details), (target, batch.target)):
                new[silent] = old[silent]
        return batch._replace(data=data, details=details, target=target)

    def _target(self, details: Tensor) -> Tensor:
        heard = (details > 0.5).sum(dim=1) >= _LEAST_FRAMES
        return self._classes[tuple(heard.long().unbind(dim=1))]


def _classes_of_heard(level: int) -> list[list[list[int]]]:
    """The class index by whether an event, a continuous and a discontinuous sound are heard."""
    classes = resp_classes(2, level)

    def number(label: str) -> int:
        return classes.index(label if level == 2 else coarse(label))

    return [
        [[number(without), number("DAS")], [number("CAS"), number("CAS & DAS")]] for without in (POOR_QUALITY, NORMAL)
    ]
