"""Distillation: learning from a teacher's soft predictions beside the labels (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from base.base_data_loader import BaseDataLoader
from utils.config import ConfigParser
from utils.errors import UserError
from utils.files import atomic_path

WHERE = "distillation.soft_targets"
# The column of a table of soft targets that names an item, as `SoundDataset.names` does.
ITEM = "item"


class Distillation:
    """What a teacher says of the training items, and what its share of the loss is.

    The loss of an item is ``(1 - weight) * loss of its label + weight * T^2 * KL(teacher || student)``, where both
    distributions are softened by the temperature T. A class weight of the loss applies to both parts.

    Args:
        probabilities: of the teacher, ``(items, classes)`` by item number; rows of items that are not trained on are
            not looked at.
        weight: of the teacher's part, 0 to 1.
        temperature: above 0; 1 takes the teacher's probabilities as they are.
    """

    def __init__(self, probabilities: NDArray[np.float32], weight: float = 0.5, temperature: float = 2.0) -> None:
        self.weight, self.temperature = weight, temperature
        self.digest = hashlib.sha256(probabilities.tobytes()).hexdigest()
        log_p = torch.from_numpy(probabilities).clamp_min(torch.finfo(torch.float32).tiny).log()
        self._soft = torch.softmax(log_p / temperature, dim=1)

    def targets(self, index: Tensor) -> Tensor:
        """The softened predictions ``(batch, classes)`` float32 of items by their numbers ``(batch,)`` int64."""
        return self._soft[index]

    def loss(self, of_labels: Tensor, logits: Tensor, soft: Tensor, weights: Tensor | None) -> Tensor:
        """Both parts, float32 scalar.

        Args:
            of_labels: the loss of the labels, a mean over the batch.
            logits: of the student, ``(batch, classes)``.
            soft: of `targets`.
            weights: ``(batch,)``, what each item counts in that mean; None for all the same.
        """
        log_q = F.log_softmax(logits.float() / self.temperature, dim=1)
        each = F.kl_div(log_q, soft, reduction="none").sum(dim=1)
        if weights is None:
            mean = each.mean()
        else:
            total = weights.sum()
            mean = (each * weights).sum() / torch.where(total > 0, total, 1.0)
        return (1.0 - self.weight) * of_labels + self.weight * self.temperature**2 * mean


def make_distillation(config: ConfigParser, loader: BaseDataLoader) -> Distillation | None:
    """The distillation that a config asks for; None where it asks for none.

    Raises:
        UserError: the soft targets cannot be read, or lack a training item or a class.
    """
    section = config.get("distillation")
    if section is None:
        return None
    args = {key: value for key, value in section.items() if key != "soft_targets"}
    return Distillation(_of_loader(Path(section["soft_targets"]), loader), **args)


def _of_loader(path: Path, loader: Any) -> NDArray[np.float32]:
    """``(items, classes)`` of all items of a loader's data set; 0 for those that are not trained on."""
    import pandas as pd

    items, found = read_soft_targets(path, loader.classes)
    names = loader.dataset.names[loader.train_indices]
    rows = pd.Index(items).get_indexer(names)
    if (missing := rows < 0).any():
        what = f"lacks {int(missing.sum()):,} of {len(rows):,} training items, such as {names[missing][0]}"
        raise UserError(path, what, "take a teacher of the same data and split")
    probabilities = np.zeros((len(loader.dataset), len(loader.classes)), np.float32)
    probabilities[loader.train_indices] = found[rows]
    return probabilities


def read_soft_targets(path: Path, classes: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """A table of soft targets: item names ``(n,)`` str, unique, and probabilities ``(n, classes)`` that sum to 1.

    Raises:
        UserError: it cannot be read, or is none for these classes.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={ITEM: str}, keep_default_na=False, encoding_errors="surrogateescape")
    except FileNotFoundError as error:
        hint = "python train.py -c CONFIG --folds 5 --teacher FOLDER makes them"
        raise UserError(path, "there are no such soft targets", hint) from error
    except (OSError, ValueError) as error:
        raise UserError(path, f"is no readable table: {error}") from error
    columns = [ITEM, *(f"prob_{name}" for name in classes)]
    if (own := [*map(str, table.columns)]) != columns:
        raise UserError(path, f"has the columns {', '.join(own)}", f"expected {', '.join(columns)}")
    try:
        probabilities = table[columns[1:]].to_numpy(np.float32)
    except ValueError as error:
        raise UserError(path, f"holds what is no number: {error}") from error
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise UserError(path, "holds what is no probability")
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
        raise UserError(path, "has rows whose probabilities do not sum to 1")
    if table[ITEM].duplicated().any():
        raise UserError(path, f"names {table[ITEM][table[ITEM].duplicated()].iloc[0]} twice")
    return table[ITEM].to_numpy(), probabilities


def write_soft_targets(path: Path, names: Sequence[str], prob: NDArray[np.float32], classes: Sequence[str]) -> None:
    """Write a table that `read_soft_targets` reads, aside and renamed.

    Args:
        names: of the items.
        prob: ``(items, classes)``.

    Raises:
        OSError: it cannot be written.
    """
    import pandas as pd

    table = pd.DataFrame(prob, columns=[f"prob_{name}" for name in classes])
    table.insert(0, ITEM, names)
    with atomic_path(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n", errors="surrogateescape")


def refuse_other_teacher(state: Mapping[str, Any], path: Path, own: Distillation | None) -> None:
    """Refuse a checkpoint whose run learnt from another teacher: the run that goes on would be another one.

    Args:
        state: of the checkpoint `path`.
        own: of the run.

    Raises:
        UserError: it is one.
    """
    if state.get("soft_targets") != (own.digest if own else None):
        what = f"are not those that {path} was trained with"
        raise UserError(WHERE, what, "put them back, or start a new run")
