"""Computing features and writing a store.

The work is cut into shards of `SHARD_ITEMS` items. Each shard is computed by one process, written aside and renamed
into ``processed_<method>.partial``; when all are there the folder is renamed to ``processed_<method>``. So a store is
complete or it is not there, and an interrupted run goes on with the shards that are missing.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import queue
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from data_loader.audio import cut_event, read_audio
from data_loader.batching import similar_batches
from data_loader.features import Feature, methods
from data_loader.features.wav2vec_network import weights_fingerprint
from data_loader.store import INDEX_COLUMNS, StoreMeta, encode, read_meta, source_digest
from logger.progress import progress_bar
from utils.errors import UserError
from utils.files import atomic_path, atomic_write_text, write_json
from utils.versions import library_versions

SHARD_ITEMS = 512


@dataclass(frozen=True)
class Job:
    """One shard to compute: which items, and where they go."""

    task: int
    name: str
    items: list[tuple[str, int, int]]  # path relative to the data folder, start and end in ms (-1: to the end)


@dataclass(frozen=True)
class Recipe:
    """What a worker process needs to know to compute any shard."""

    data_dir: Path
    folder: Path
    method: str
    params: dict[str, Any]
    device: str


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
    force: bool = False,
    progress: bool = False,
) -> tuple[Path, int]:
    """Compute a feature for the items of some tasks and write the store ``<data_dir>/processed_<method>``.

    Args:
        params: all parameters of the method.
        tables: for each task, its table (see `tables.py`).
        digests: see `Tables.digests`.
        workers: processes that compute; with 1 this process does.
        limit: take only this many recordings, evenly spread over the table, and their events.
        force: make an existing store anew.

    Returns:
        The store's folder, and how many items were computed now (0 where the store was complete already).

    Raises:
        UserError: the store was made with other parameters or from other data, a file cannot be read, or a feature is
            not finite.
    """
    folder = data_dir / f"processed_{feature.name}"
    partial = folder.with_name(folder.name + ".partial")
    tables = {task: _limited(table, limit) for task, table in sorted(tables.items())}
    shape = list(feature(torch.zeros(16000), 16000, **params).shape)
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
    )
    _finish_swap(folder)
    existing = None
    if folder.exists() and not force:
        existing = read_meta(folder)
        _refuse_other_origin(folder, existing, plan)
        if set(plan.items) <= set(existing.items):
            return folder, 0
        kept = {task: existing.items[task] for task in existing.items}
        plan = replace(plan, sources=existing.sources | plan.sources, items=kept | plan.items)
        tables = {task: table for task, table in tables.items() if str(task) not in existing.items}

    _prepare(partial, plan)
    jobs = [job for task, table in tables.items() for job in _jobs(task, table)]
    open_jobs = [job for job in jobs if not (partial / job.name).exists()]
    recipe = Recipe(data_dir, partial, feature.name, params, device)
    _run(open_jobs, recipe, workers, progress, done=sum(len(j.items) for j in jobs if j not in open_jobs))

    index = pd.concat([_index(task, table) for task, table in tables.items()])
    if existing:
        old = pd.read_csv(folder / "index.csv", dtype={"wav_name": str, "shard": str})
        for shard in sorted(set(old["shard"])):
            if not (partial / shard).exists():
                shutil.copyfile(folder / shard, partial / shard)
        index = pd.concat([old, index]).sort_values(["task", "shard", "row"])
    atomic_write_text(partial / "index.csv", index.to_csv(index=False, lineterminator="\n"))
    write_json(partial / "meta.json", plan.to_json())
    (partial / "plan.json").unlink()
    _swap(partial, folder)
    return folder, sum(len(job.items) for job in open_jobs)


def _limited(table: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    paths = sorted(set(table["path"]))
    if limit is None or limit >= len(paths):
        return table
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
    if (existing.shape, existing.dtype, existing.weights) != (plan.shape, plan.dtype, plan.weights):
        raise UserError(folder, "was made with another version of the method or other weights", remedy)
    for task, source in plan.sources.items():
        if existing.limit != plan.limit:
            raise UserError(folder, f"was made with --limit {existing.limit}, now {plan.limit}", remedy)
        if existing.sources.get(task, source) != source:
            raise UserError(folder, f"was made from other recordings or annotations of task {task}", remedy)


def _prepare(partial: Path, plan: StoreMeta) -> None:
    """Make the folder for unfinished shards; one of another plan cannot be continued and goes."""
    path = partial / "plan.json"
    if partial.exists():
        try:
            same = json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(plan.to_json()))
        except (OSError, ValueError):
            same = False
        if same:
            return
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    write_json(path, plan.to_json())


def _swap(partial: Path, folder: Path) -> None:
    """Put the finished folder in place of the old one, which goes only when the new one stands."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _finish_swap(folder: Path) -> None:
    """Mend what a run killed within `_swap` left behind."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _shard_name(task: int, number: int, n_items: int) -> str:
    return f"task{task}-{number:05d}-of-{-(-n_items // SHARD_ITEMS):05d}.npy"


def _items(task: int, table: pd.DataFrame) -> list[tuple[str, int, int]]:
    if task == 1:
        return list(zip(table["path"], table["start_ms"].astype(int), table["end_ms"].astype(int), strict=True))
    return [(path, 0, -1) for path in table["path"]]


def _jobs(task: int, table: pd.DataFrame) -> Iterator[Job]:
    items = _items(task, table)
    for number, start in enumerate(range(0, len(items), SHARD_ITEMS)):
        yield Job(task, _shard_name(task, number, len(items)), items[start : start + SHARD_ITEMS])


def _index(task: int, table: pd.DataFrame) -> pd.DataFrame:
    position = np.arange(len(table))
    index = pd.DataFrame({"task": task, "wav_name": table["wav_name"].to_numpy()})
    for column in ("event_id", "start_ms", "end_ms"):
        index[column] = table[column].to_numpy() if task == 1 else -1
    index["shard"] = [_shard_name(task, number, len(table)) for number in position // SHARD_ITEMS]
    index["row"] = position % SHARD_ITEMS
    return index[INDEX_COLUMNS]


def _run(jobs: list[Job], recipe: Recipe, workers: int, progress: bool, done: int) -> None:
    total = done + sum(len(job.items) for job in jobs)
    with progress_bar(total=total, initial=done, desc=recipe.method, unit="item", disable=not progress) as bar:
        if workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                for count in _compute(job, recipe):
                    bar.update(count)
            return
        # Not forked: a child of a process in which torch has run threads may hang.
        context = multiprocessing.get_context("spawn")
        counts = context.Queue()
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (recipe, counts))
        try:
            futures = [pool.submit(_work, job) for job in jobs]
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                if count := _drain(counts):
                    bar.update(count)
                for future in finished:
                    future.result()
            if count := _drain(counts):
                bar.update(count)
        except BaseException:
            # Stopped or failed: what the others are at would be thrown away with the shard anyway.
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}


def _start_worker(recipe: Recipe, counts: multiprocessing.Queue) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # Stopping is the parent's business; it ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One thread a process: the processes share the cores already.
    torch.set_num_threads(1)
    _worker.update(recipe=recipe, counts=counts)


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(job: Job) -> None:
    for count in _compute(job, _worker["recipe"]):
        _worker["counts"].put(count)


def _drain(counts: multiprocessing.Queue) -> int:
    total = 0
    while True:
        try:
            total += counts.get_nowait()
        except queue.Empty:
            return total


def _compute(job: Job, recipe: Recipe) -> Iterator[int]:
    """Compute and write one shard; yields how many items each batch had."""
    feature: Feature = methods[recipe.method]
    waveforms = _cut(job, recipe.data_dir)
    shard: np.ndarray | None = None
    for rows, batch, lengths, rate in similar_batches(waveforms, feature.batch_size):
        with torch.inference_mode():
            features = feature(batch.to(recipe.device), rate, lengths, **recipe.params)
        finite = features.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            bad = job.items[rows[int((~finite).nonzero()[0, 0])]]
            raise UserError(recipe.data_dir / bad[0], f"its feature {recipe.method} is not finite")
        stored = encode(features, feature.unit_range, feature.repeats)
        if shard is None:
            shard = np.empty((len(job.items), *stored.shape[1:]), dtype=stored.dtype)
        shard[rows] = stored
        yield len(rows)
    try:
        with atomic_path(recipe.folder / job.name) as path, path.open("wb") as file:
            np.save(file, shard, allow_pickle=False)
    except OSError as error:
        hint = "free some space and run again: finished shards are kept"
        raise UserError(recipe.folder / job.name, f"cannot be written: {error.strerror}", hint) from error


def _cut(job: Job, data_dir: Path) -> list[tuple[np.ndarray, int]]:
    """The waveforms of a job's items with their rates; a recording is decoded once for all its events."""
    waveforms = []
    path, recording, rate = None, np.zeros(0, np.float32), 0
    for item_path, start_ms, end_ms in job.items:
        if item_path != path:
            recording, rate = read_audio(data_dir / item_path)
            path = item_path
        waveforms.append((cut_event(recording, rate, start_ms, end_ms), rate))
    return waveforms
