"""``train.py --folds --teacher``: one small network in place of a group's ensemble, which it learns from.

The student of a fold learns from the teacher's members of the same fold: neither has seen anything of its validation
patients, and the out-of-fold score of the students is an honest one. The final student is trained on all items, and
learns of each what the members say that were not trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from base.run_files import FREE_SPACE
from logger.log import get_logger
from trainer.building import make_loader
from trainer.distillation import read_soft_targets, write_soft_targets
from trainer.evaluation import predict_split
from trainer.group import Group, Part, make_group, read_record
from trainer.out_of_fold import predict_out_of_fold
from trainer.part_runs import last_checkpoint_path
from trainer.trained import Trained, load_trained
from utils.arguments import matches
from utils.checkpoint import load_checkpoint
from utils.config import GROUP_FILE, ConfigParser
from utils.errors import UserError
from utils.files import file_digest, write_json
from utils.strict_json import read_json

logger = get_logger(__name__)

# Of the last checkpoint of the final student, what a test takes beside its config.
_TESTED = ("arch", "epoch", "state_dict", "classes", "input", "data", "origins", "priors", "soft_targets")


@dataclass(frozen=True)
class Teacher:
    """A group that has been trained.

    Attributes:
        folder: of the group, ``saved/models/NAME/RUN``. Its tables of soft targets come to lie in it.
    """

    folder: Path
    group: Group

    @property
    def name(self) -> str:
        """NAME/RUN, wherever the folder lies."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}"

    def table(self, fold: int | None) -> Path:
        """What is learnt from: by the students of a fold, or by the final one (None)."""
        return self.folder / "soft_targets" / ("final.csv" if fold is None else f"fold{fold}.csv")

    def parts(self, fold: int | None) -> list[Part]:
        """Those whose predictions a table holds."""
        return [part for part in self.group.parts if fold in (None, part.fold)]


def read_teacher(folder: Path, students: Group) -> Teacher:
    """The group in a folder.

    Args:
        students: that are to learn from it.

    Raises:
        UserError: it is none, is not trained to its end, or has other folds; or the students are several networks.
    """
    if len(students.members) > 1:
        raise UserError("--teacher", "teaches one network, the config names several", "take the config of one")
    if len(students.seeds) > 1:
        what = f"is {len(students.seeds)}, but --teacher publishes one network, and the score would be that of several"
        hint = "leave it out; --set seed=1 data_loader.args.seed=0 trains one of another seed"
        raise UserError("--seeds", what, hint)
    record = read_record(folder)
    if (
        not isinstance(record, dict)
        or not matches(record.get("folds"), int)
        or not matches(record.get("seeds"), list[int])
        or not matches(record.get("members"), dict[str, dict[str, Any]])
        or not (record["members"] and record["seeds"] and record["folds"] > 1)
    ):
        hint = "name the folder of a train.py --folds: saved/models/NAME/RUN"
        raise UserError(folder / GROUP_FILE, "does not tell of a group of runs", hint)
    if record["folds"] != students.folds:
        what = f"is {students.folds}, the teacher has {record['folds']}"
        raise UserError("--folds", what, f"take {record['folds']}")
    try:
        members = {name: ConfigParser(config) for name, config in record["members"].items()}
    except UserError as error:
        what = f"does not fit this program: {error.subject} {error.what}"
        raise UserError(folder / GROUP_FILE, what, error.hint) from error
    group = make_group(folder.name, members, record["folds"], record["seeds"])
    if left := [part.name for part in group.parts if not last_checkpoint_path(folder, part).is_file()]:
        what = f"is not trained to its end: {left[0]} and {len(left) - 1} others are not there"
        raise UserError(folder, what, "repeat its command with -r auto: it goes on")
    return Teacher(folder, group)


def taught(students: Group, teacher: Teacher) -> Group:
    """The students' runs with what each learns from, and the final student's run on all items."""
    parts = [replace(part, config=_learning(part.config, teacher.table(part.fold))) for part in students.parts]
    first = parts[0]
    alone = _learning(first.config, teacher.table(None)).changed("data_loader.args", validation_split=0)
    return replace(students, parts=parts, final=Part(f"{first.member}-final", first.member, first.seed, None, alone))


def _learning(config: ConfigParser, table: Path) -> ConfigParser:
    changed = config.to_dict()
    changed["distillation"] = {**(changed.get("distillation") or {}), "soft_targets": str(table)}
    return ConfigParser(changed)


def prepare_soft_targets(
    teacher: Teacher, students: Group, classes: tuple[str, ...], device: torch.device
) -> dict[str, str]:
    """Write the tables that the students learn from, those that are missing or of earlier networks, and check all.

    Args:
        students: of `taught`.
        classes: of the students.

    Returns:
        A digest of each table, by its name.

    Raises:
        UserError: the teacher knows other classes, or was trained on other items of a fold than the student; a table
            cannot be written; or see `predict_split`.
    """
    first = last_checkpoint_path(teacher.folder, teacher.group.parts[0])
    if (known := tuple(load_checkpoint(first)["classes"])) != classes:
        raise UserError(teacher.folder, f"knows the classes {', '.join(known)}", f"the task has {', '.join(classes)}")
    data_dir = students.first.get("data_loader.args.data_dir")
    changes = {} if data_dir is None else {"data_dir": data_dir}

    def load(part: Part) -> Trained:
        return load_trained(last_checkpoint_path(teacher.folder, part), device, changes)

    networks = {part.name: file_digest(last_checkpoint_path(teacher.folder, part)) for part in teacher.group.parts}
    for part in students.runs:
        path = teacher.table(part.fold)
        own = {its.name: networks[its.name] for its in teacher.parts(part.fold)}
        if not path.is_file() or _is_of_others(path, own):
            logger.info("%s: the teacher predicts", path)
            names, prob = _out_of_fold(teacher, load) if part.fold is None else _in_fold(teacher, part.fold, load)
            try:
                write_soft_targets(path, names, prob, classes)
                # After the table: killed between the two, an earlier note has it made again.
                write_json(_made_of(path), own)
            except OSError as error:
                raise UserError(error.filename or path, f"cannot be written: {error.strerror}", FREE_SPACE) from error
        _refuse_other_items(path, part, classes)
    return {path.stem: file_digest(path) for path in (teacher.table(part.fold) for part in students.runs)}


def _made_of(table: Path) -> Path:
    """What names the networks that a table was made of, each with a digest of its checkpoint."""
    return table.with_suffix(".json")


def _is_of_others(table: Path, networks: dict[str, str]) -> bool:
    """Whether a table was made before the teacher was trained anew. Those of earlier versions do not say."""
    if not (note := _made_of(table)).is_file():
        return False
    try:
        return read_json(note) != networks
    except (OSError, ValueError):
        return True


def _in_fold(teacher: Teacher, fold: int, load: Any) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what the members of a fold say of what they were trained on: ``(n,)`` names, ``(n, classes)``."""
    each = []
    for part in teacher.parts(fold):
        trained = load(part)
        each.append(predict_split(trained, "train"))
    index = each[0].table.index
    if not all(own.table.index.equals(index) for own in each):
        raise UserError(teacher.folder, f"its members of fold {fold} were trained on different items")
    return _names(trained)[index], _mean([own.probabilities for own in each])


def _out_of_fold(teacher: Teacher, load: Any) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what the members say of the items that they were not trained on."""
    last: list[Trained] = []

    def noted(part: Part) -> Trained:
        last[:] = [load(part)]
        return last[0]

    found = predict_out_of_fold(teacher.group, noted)
    return _names(last[0])[found.table.index], _mean([*found.probabilities.values()])


def _mean(each: list[np.ndarray]) -> np.ndarray:
    return np.mean(each, axis=0, dtype=np.float64).astype(np.float32)


def _names(trained: Trained) -> np.ndarray:
    return make_loader(trained.config.changed("data_loader.args", normalize=False)).dataset.names


def _refuse_other_items(path: Path, part: Part, classes: tuple[str, ...]) -> None:
    """What a student is validated on, its teacher has not seen: both were trained on the same items."""
    items, _ = read_soft_targets(path, classes)
    loader = make_loader(part.config.changed("data_loader.args", normalize=False))
    own = loader.dataset.names[loader.train_indices]
    if differing := {*items.tolist()} ^ {*own.tolist()}:
        what = f"is of other items than those that {part.name} is trained on: {len(differing):,} differ"
        raise UserError(path, what, "give student and teacher the same data, seed and split_by")


def student_checkpoint(folder: Path, final: Part, out_of_fold: Path) -> dict[str, Any]:
    """What test.py takes: the final student, without what only a run that goes on needs.

    Args:
        folder: of the students' group, trained.
        out_of_fold: the file with the out-of-fold scores.
    """
    path = last_checkpoint_path(folder, final)
    checkpoint = load_checkpoint(path)
    tested = {key: checkpoint[key] for key in _TESTED if key in checkpoint}
    # Not the checkpoint's config: a run that was taken from another group may have decided otherwise.
    config = final.config.to_dict()
    return {**tested, "config": config, "parts": [str(path)], "out_of_fold": str(out_of_fold)}


def student_metrics(
    metrics: dict[str, Any], final: Part, minutes: dict[str, float], teacher: Teacher
) -> dict[str, Any]:
    """The out-of-fold metrics of students: what is published is one network, and took its time too."""
    own = minutes.get(final.name, 0.0)
    return {
        **metrics,
        "parameters": metrics["members"][final.member]["parameters"],
        "minutes": {**metrics["minutes"], final.name: round(own, 3)},
        "minutes_together": round(metrics["minutes_together"] + own, 3),
        "teacher": teacher.name,
    }
