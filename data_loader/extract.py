"""Computing features and writing a store.

The work is cut into jobs (see `jobs.py`). A job's shards are computed by one thread, written aside and renamed into
``processed_<method>.partial``; when all are there the folder is renamed to ``processed_<method>``. So a store is
complete or it is not there, and an interrupted run goes on with the shards that are missing. Under torchrun each
process computes a share of the jobs into the same folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from data_loader.audio import read_audio
from data_loader.features import Feature
from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.fingerprint import with_digests
from data_loader.jobs import Job, plan_jobs
from data_loader.shard_workers import compute_jobs
from data_loader.shards import Recipe
from data_loader.store import StoreMeta, read_meta, source_digest
from data_loader.store_index import DIGEST, read_index, write_index
from utils.distributed import first_process_does, my_share, wait_for_all, world_size
from utils.errors import UserError
from utils.files import atomic_link, remove_leftovers, write_json
from utils.versions import library_versions


def extract(
    data_dir: Path,
    feature: Feature,
    params: dict[str, Any],
    tables: dict[int, pd.DataFrame],
    digests: dict[str, str],
    *,
    workers: int = 1,
    device: str = "cpu",
    limit: int | None = None,
    n_shards: int | None = None,
    force: bool = False,
    progress: bool = False,
    when_checked: Callable[[], None] = lambda: None,
) -> tuple[Path, int]:
    """Compute a feature for the items of some tasks and write the store ``<data_dir>/processed_<method>``.

    Args:
        params: all parameters of the method.
        tables: for each task, its table (see `tables.py`).
        digests: see `Tables.digests`.
        workers: threads that compute, each on one core.
        limit: take only this many recordings, evenly spread over all of them, and their events.
        n_shards: how many shards each task gets; None makes as many as suit their size.
        force: make an existing store anew.
        when_checked: called (in the first process) once nothing speaks against the store that there may be, before
            anything is computed.

    Returns:
        The store's folder, and how many items were computed now, by all processes (0: the store was complete already).

    Raises:
        UserError: the store was made with other parameters or from other data, or has another number of shards than is
            asked for; a file cannot be read, or a feature is not finite.
    """
    folder = data_dir / f"processed_{feature.name}"
    partial = folder.with_name(folder.name + ".partial")
    limit = limit if limit is not None and limit < len(digests) else None
    tables = {task: with_digests(_limited(table, digests, limit), digests) for task, table in sorted(tables.items())}
    if not any(map(len, tables.values())):
        which = " and ".join(str(task) for task in tables)
        raise UserError(data_dir, f"holds no items of task {which} to compute features for", "see the counts above")
    rate = _a_rate(data_dir, tables)
    params = first_process_does(lambda: feature.settled(params, device))
    shape = list(feature(torch.zeros(rate), rate, **params).shape)
    plan = StoreMeta(
        method=feature.name,
        params=params,
        shape=shape,
        dtype="uint8" if feature.unit_range else "float16",
        repeats=feature.repeats,
        sources={str(task): source_digest(table, task, digests) for task, table in tables.items()},
        items={str(task): len(table) for task, table in tables.items()},
        limit=limit,
        weights=weights_fingerprint(params["weights"]) if "weights" in params else None,
        versions=library_versions(("torch", "torchaudio", "scipy", "PyWavelets")),
        rate=None if feature.resamples else rate,
        digests=True,
    )
    existing = first_process_does(lambda: _start(folder, partial, plan, force, n_shards))
    first_process_does(when_checked)
    if existing is None:
        return folder, 0
    jobs, index = plan_jobs({task: table for task, table in tables.items() if str(task) not in existing}, n_shards)
    rows = {name: len(items) for job in jobs for name, items in job.shards.items()}
    recipe = Recipe(data_dir, partial, feature.name, params, device, plan.rate)
    try:
        finished = first_process_does(lambda: _prepare(partial, replace(plan, shards=rows)))
        missing = [Job({name: items for name, items in job.shards.items() if name not in finished}) for job in jobs]
        open_jobs = [job for job in missing if job.shards]
        compute_jobs(my_share(open_jobs), recipe, workers, progress)
    except BaseException:
        # Finished shards are kept to go on with; where there are none, neither is the folder.
        if world_size() == 1 and not any(partial.glob("*.npy")):
            _remove(partial)
        raise
    wait_for_all()
    first_process_does(lambda: _finish(folder, partial, plan, _read_existing(folder, force), index))
    return folder, sum(job.n_items for job in open_jobs)


def _start(folder: Path, partial: Path, plan: StoreMeta, force: bool, n_shards: int | None) -> set[str] | None:
    """Look at what there is: the tasks of the store that stay; None where all is there."""
    _finish_swap(partial, folder)
    existing = _read_existing(folder, force)
    if existing:
        _refuse_other_origin(folder, existing, plan)
        if n_shards is not None:
            _refuse_other_number(folder, existing, plan, n_shards)
        if set(plan.items) <= set(existing.items):
            return None
        # Damage to what stays is found before the work, not after it.
        read_index(folder, existing.shards)
    return set(existing.items) if existing else set()


def _read_existing(folder: Path, force: bool) -> StoreMeta | None:
    """The description of a store that stays."""
    if not folder.exists() or force:
        return None
    if not (folder / "meta.json").is_file():
        raise UserError(folder, "is no feature store: it lacks meta.json", "--force makes it anew")
    return read_meta(folder)


def _finish(folder: Path, partial: Path, plan: StoreMeta, existing: StoreMeta | None, index: pd.DataFrame) -> None:
    """Add what is missing to the shards, and make them the store."""
    if existing:
        old = read_index(folder, existing.shards)
        for shard in existing.shards:
            if not (partial / shard).exists():
                atomic_link(folder / shard, partial / shard)
        if not existing.digests:
            index = index.drop(columns=DIGEST)
        index = pd.concat([old, index]).sort_values(["task", "shard", "row"])
        sources, items = existing.sources | plan.sources, existing.items | plan.items
        plan = replace(plan, sources=sources, items=items, digests=existing.digests)
    shards = index.groupby("shard").size().to_dict()
    if absent := [name for name in shards if not (partial / name).is_file()]:
        raise UserError(partial / absent[0], "is missing", "all processes must see one data folder; run again")
    write_index(partial, index, shards)
    write_json(partial / "meta.json", replace(plan, shards=shards).to_json())
    # From here on `_is_whole`.
    (partial / "plan.json").unlink()
    _swap(partial, folder)


def stored_tasks(folder: Path) -> set[int]:
    """The tasks that a store holds; none where there is no store."""
    return {int(task) for task in read_meta(folder).items} if (folder / "meta.json").is_file() else set()


def _a_rate(data_dir: Path, tables: dict[int, pd.DataFrame]) -> int:
    """The rate of the first recording: features may depend on it."""
    path = next(table["path"].iloc[0] for table in tables.values() if len(table))
    return read_audio(data_dir / path)[1]


def _limited(table: pd.DataFrame, digests: Collection[str], limit: int | None) -> pd.DataFrame:
    if limit is None:
        return table
    paths = sorted(digests)
    chosen = {paths[i] for i in np.linspace(0, len(paths) - 1, limit).astype(int)}
    return table[table["path"].isin(chosen)]


def _refuse_other_origin(folder: Path, existing: StoreMeta, plan: StoreMeta) -> None:
    remedy = "--force makes it anew"
    if existing.params != plan.params:
        keys = sorted(existing.params.keys() | plan.params.keys())
        changed = [
            f"{key} {existing.params.get(key)!r}, now {plan.params.get(key)!r}"
            for key in keys
            if existing.params.get(key) != plan.params.get(key)
        ]
        raise UserError(folder, f"was made with other parameters: {'; '.join(changed)}", remedy)
    if existing.rate is not None and existing.rate != plan.rate:
        raise UserError(folder, f"was made at {existing.rate} samples a second, now it is {plan.rate}", remedy)
    if (existing.shape, existing.dtype, existing.weights) != (plan.shape, plan.dtype, plan.weights):
        raise UserError(folder, "was made with another version of the method or other weights", remedy)
    for task, source in plan.sources.items():
        if existing.limit != plan.limit:
            limits = [f"--limit {limit}" if limit else "no --limit" for limit in (existing.limit, plan.limit)]
            raise UserError(folder, f"was made with {limits[0]}, now there is {limits[1]}", remedy)
        if existing.sources.get(task, source) != source:
            raise UserError(folder, f"was made from other recordings or annotations of task {task}", remedy)


def _refuse_other_number(folder: Path, existing: StoreMeta, plan: StoreMeta, n_shards: int) -> None:
    for task in sorted(existing.items.keys() & plan.items.keys()):
        there = sum(name.startswith(f"task{task}-") for name in existing.shards)
        if there != n_shards:
            raise UserError(folder, f"has {there} shards of task {task}, not {n_shards}", "--force makes it anew")


def _prepare(partial: Path, plan: StoreMeta) -> set[str]:
    """Make the folder for unfinished shards; one of another plan cannot be continued and goes.

    Args:
        plan: its `shards` are those to compute. They say how the items are cut into jobs, too: recordings that are
            cut with another set of tasks lie in other shards, which may have the same names.

    Returns:
        The shards that an interrupted run finished.
    """
    path = partial / "plan.json"
    if partial.exists():
        try:
            same = json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(plan.to_json()))
        except (OSError, ValueError):
            same = False
        if same:
            # A run that was killed could not take away what it was writing.
            remove_leftovers(partial)
            return plan.shards.keys() & {shard.name for shard in partial.glob("*.npy")}
        (partial / "meta.json").unlink(missing_ok=True)
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    write_json(path, plan.to_json())
    return set()


def _is_whole(partial: Path) -> bool:
    """Whether nothing is missing but the new name. What removes a folder begins with its meta.json."""
    return (partial / "meta.json").is_file() and not (partial / "plan.json").exists()


def _swap(partial: Path, folder: Path) -> None:
    """Put the finished folder in place of the old one, which goes only when the new one stands."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        _remove(old)
        folder.rename(old)
    partial.rename(folder)
    _remove(old)


def _finish_swap(partial: Path, folder: Path) -> None:
    """Finish what a run killed within `_swap` left behind."""
    old = folder.with_name(folder.name + ".old")
    if _is_whole(partial):
        _swap(partial, folder)
    elif _is_whole(old) and not folder.exists():
        old.rename(folder)
    _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        # A store kept on another disk: the link goes, the files stay, they are not ours to judge.
        folder.unlink()
        return
    with contextlib.suppress(OSError):
        (folder / "meta.json").unlink()
    shutil.rmtree(folder, ignore_errors=True)
