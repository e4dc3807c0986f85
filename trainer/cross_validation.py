"""``train.py --folds``: train all folds of all members, score them out of fold, write one ensemble."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from base.run_files import FREE_SPACE, announce_run, publish, runs_of
from logger.log import get_logger, setup_logging
from trainer.coarser import Coarser, coarser_of
from trainer.deciding import refuse_context
from trainer.ensemble import ensemble_checkpoint, ensemble_config, ensemble_priors
from trainer.group import Group, Part, check_group, read_group, record_difference
from trainer.out_of_fold import out_of_fold_report, paths_of, predict_out_of_fold, summary
from trainer.part_runs import PartRuns, Slot, last_checkpoint_path
from trainer.report import Report
from trainer.reuse import read_source, reuse_runs
from trainer.teaching import (
    Teacher,
    prepare_soft_targets,
    read_teacher,
    student_checkpoint,
    student_metrics,
    taught,
)
from trainer.trained import Trained, load_trained
from utils.checkpoint import save_checkpoint
from utils.cli import n_devices
from utils.config import GROUP_FILE, ConfigParser
from utils.device import choose_device
from utils.distributed import world_size
from utils.errors import UserError
from utils.files import write_json
from utils.lock import only_one
from utils.strict_json import read_json

logger = get_logger(__name__)

LOCK = "lock"
# What is shown of a report.
_REPORTED = {"task", "split", "decide", "n", "classes", "confusion_matrix", "per_class", "ci95"}
_REPORTED |= {"folds", "members", "seeds", "parameters", "minutes", "minutes_together"}


def cross_validate(args: Namespace) -> None:
    """Train the folds of a config, or of the members of an ensemble's config, and put them together.

    A group of the same name that `args.run_id` names, or the newest one with ``-r auto``, goes on where it was.

    Args:
        args: of train.py.

    Raises:
        UserError: the configs, the data or the group do not fit; a run failed.
        Stopped, KeyboardInterrupt: a signal came; all runs have saved where they are.
    """
    if world_size() > 1:
        raise UserError("--folds", "several processes were started", "start one: it starts the runs itself")
    if args.resume not in (None, "auto"):
        raise UserError("-r", "goes on with one run, and --folds has many", "take -r auto, or --run_id of the group")
    group = read_group(args)
    teacher = read_teacher(Path(args.teacher), group) if args.teacher else None
    group = taught(group, teacher) if teacher else group
    record, loader = check_group(group)
    device = choose_device(group.first.get("n_gpu") if args.device is None else n_devices(args.device))
    reused = Path(args.reuse) if args.reuse else None
    if reused:
        read_source(reused, record)
    if teacher:
        record["teacher"] = teacher.name
        record["soft_targets"] = prepare_soft_targets(teacher, group, loader.classes, device)
    begun = _begun(group, args, record)
    coarser = coarser_of(group)
    # A student is published as it is, unless its classes are put together.
    alone = group.final and not coarser
    settled = group.final.config if alone else ensemble_config(group, len(loader.classes), coarser)
    config = ConfigParser(
        settled.to_dict(), None if begun else args.run_id, begun / "model_best.pth" if begun else None
    )
    config.make_run_folders()
    with _unwritable_said():
        try:
            setup_logging(config.save_dir, group.first.get("trainer.verbosity", 2))
            write_json(config.save_dir / GROUP_FILE, record)
        except BaseException:
            config.discard_run_folders()
            raise
    hint = "wait for its end, or end it: it saves where it is"
    with _unwritable_said(), only_one(config.save_dir / LOCK, hint) as lock:
        announce_run(config)
        if reused:
            reuse_runs(reused, group, config.save_dir, record["input"])
        metrics = _run_and_score(group, config, loader.classes, _slots(group, args, device), lock, device, teacher)
    report_folder, path = paths_of(config.save_dir)
    report = Report(metrics, pd.DataFrame(), loader.dataset.subject.groups)
    print(f"{report.table()}\n\n{summary(metrics)}\n\n{report_folder}: metrics.json, predictions.csv")
    print(f"test it: python test.py -r {shlex.quote(str(path))}")


@contextlib.contextmanager
def _unwritable_said() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            error.filename or "trainer.save_dir", f"cannot be written: {error.strerror}", FREE_SPACE
        ) from error


def _run_and_score(
    group: Group,
    config: ConfigParser,
    classes: tuple[str, ...],
    slots: list[Slot],
    lock: int,
    device: torch.device,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """Train what is left and write the outcome; gives the out-of-fold metrics."""
    folder = config.save_dir
    report_folder, path = paths_of(folder)
    scores = report_folder / "metrics.json"
    logger.info("%s: %d runs: %d folds, %d seeds, %s", folder, len(group.runs), group.folds, len(group.seeds),
                ", ".join(group.members))  # fmt: skip
    if path.is_file() and (metrics := _read_metrics(scores)):
        logger.info("all is done: nothing is left to train")
        return metrics
    runs = PartRuns(group, folder, slots, lock)
    runs.train()
    coarser = coarser_of(group)
    report, parts = _collect(group, folder, coarser.classes if coarser else classes, device, runs.minutes, coarser)
    if teacher:
        metrics = student_metrics(report.metrics, group.final, runs.minutes, teacher)
        report = dataclasses.replace(report, metrics=metrics)
        parts = [load_trained(last_checkpoint_path(folder, group.final), device)]
    if teacher and not coarser:
        checkpoint = student_checkpoint(folder, group.final, scores)
    else:
        checkpoint = ensemble_checkpoint(config, parts, scores, coarser)
    report.save(report_folder)
    save_checkpoint(path, checkpoint)
    publish(path, config.save_root)
    return report.metrics


def _read_metrics(path: Path) -> dict[str, Any] | None:
    """The out-of-fold metrics of a group that is done; None where they have to be made anew."""
    try:
        metrics = read_json(path)
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read, and is made anew: %s", path, error)
        return None
    if not isinstance(metrics, dict) or not metrics.keys() >= _REPORTED:
        logger.warning("%s: holds no report, and is made anew", path)
        return None
    return metrics


def _collect(
    group: Group,
    folder: Path,
    classes: tuple[str, ...],
    device: torch.device,
    minutes: dict[str, float],
    coarser: Coarser | None,
) -> tuple[Report, list[Trained]]:
    """The out-of-fold report, and all networks in the order of the parts."""
    trained: list[Trained] = []

    def load(part: Part) -> Trained:
        trained.append(load_trained(last_checkpoint_path(folder, part), device))
        return trained[-1]

    found = predict_out_of_fold(group, load)
    parameters = {
        part.member: sum(parameter.numel() for parameter in own.model.parameters())
        for part, own in zip(group.parts, trained, strict=True)
    }
    priors = ensemble_priors(trained)
    refuse_context(folder, group.first.get("recording_context", False), priors)
    return out_of_fold_report(found, group, classes, parameters, minutes, priors, coarser), trained


def _begun(group: Group, args: Namespace, record: dict[str, Any]) -> Path | None:
    """The folder of the group that goes on; None where a new one begins.

    Raises:
        UserError: that group is of another config or other data.
    """
    runs = group.save_root / "models" / group.name
    if args.run_id is not None:
        named = [runs / args.run_id]
    else:
        named = runs_of(runs) if args.resume == "auto" else []
    # Without its config, a folder is not gone on with: see `make_run_folders`.
    files = (GROUP_FILE, "config.json")
    found = next((folder for folder in named if all((folder / name).is_file() for name in files)), None)
    if found is None:
        if args.resume == "auto":
            logger.info("-r auto: there is no group of %s: a new one begins", group.name)
        return None
    try:
        then = read_json(found / GROUP_FILE)
    except (OSError, ValueError) as error:
        raise UserError(found / GROUP_FILE, f"cannot be read: {error}", "begin anew with another --run_id") from error
    if difference := record_difference(then, record):
        back = "preprocess as for it" if difference.startswith("input") else "repeat its command as it was"
        raise UserError(found, f"was begun with another {difference}", f"{back}, or begin anew with another --run_id")
    return found


def _slots(group: Group, args: Namespace, device: torch.device) -> list[Slot]:
    """As many runs at a time as there are cores or, where GPUs compute, GPUs; unless ``--jobs`` says how many."""
    cores = len(os.sched_getaffinity(0))
    gpus = [] if device.type == "cpu" else _gpu_names(args)
    jobs = min(args.jobs or len(gpus) or cores, len(group.parts))
    return [Slot(gpus[n % len(gpus)] if gpus else "cpu", max(1, cores // jobs)) for n in range(jobs)]


def _gpu_names(args: Namespace) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs."""
    visible = args.device or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
