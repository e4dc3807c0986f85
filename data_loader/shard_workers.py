"""The processes that compute shards."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from data_loader.shards import Job, Recipe, compute_shard
from logger.progress import progress_bar
from utils.errors import UserError


def compute_shards(jobs: list[Job], recipe: Recipe, workers: int, progress: bool, done: int) -> None:
    """Compute and write shards with several processes, or in this one where `workers` is 1.

    Args:
        done: items that were there before, for the progress bar.

    Raises:
        UserError: a file cannot be read or written, a feature is not finite, or a process was killed.
    """
    total = done + sum(len(job.items) for job in jobs)
    with progress_bar(total=total, initial=done, desc=recipe.method, unit="item", disable=not progress) as bar:
        if workers <= 1 or len(jobs) <= 1:
            for job in jobs:
                for count in compute_shard(job, recipe):
                    bar.update(count)
            return
        # Not forked: a child of a process in which torch has run threads may hang.
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        counts = context.Queue()
        pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (recipe, counts))
        try:
            with _signals_put_off():
                # The workers are started here.
                futures = [pool.submit(_work, job) for job in jobs]
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                if count := _drain(counts):
                    bar.update(count)
                for future in finished:
                    future.result()
            bar.update(total - bar.n)
        except BrokenProcessPool as error:
            hint = "take fewer --workers and run again: finished shards are kept"
            raise UserError("--workers", "a worker process was killed, perhaps for want of memory", hint) from error
        finally:
            # All is done, or what is not is thrown away with its shard. Asked to end, a worker might wait for ever:
            # for a lock that another one held when it was killed.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _signals_put_off() -> Iterator[None]:
    """For starting processes: SIGTERM and Ctrl-C come when the block is left.

    Ctrl-C is blocked, which the processes inherit: it is for this one, which ends its workers itself. A worker that is
    still starting would answer either with a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    terminate = signal.signal(signal.SIGTERM, lambda signum, frame: came.append(signum))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for signum in came:
        signal.raise_signal(signum)


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
    for count in compute_shard(job, _worker["recipe"]):
        _worker["counts"].put(count)


def _drain(counts: multiprocessing.Queue) -> int:
    total = 0
    while True:
        try:
            total += counts.get_nowait()
        except queue.Empty:
            return total
