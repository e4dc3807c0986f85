"""The threads that compute jobs."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait

import torch

from data_loader.jobs import Job
from data_loader.shards import Recipe, compute_job
from logger.progress import progress_bar
from utils.cli import Stopped


def compute_jobs(jobs: list[Job], recipe: Recipe, workers: int, progress: bool) -> None:
    """Compute jobs and write their shards, several at a time.

    Threads, not processes: decoding, NumPy and PyTorch run outside the interpreter's lock, and threads cost no start,
    no copy of a network, and nothing to clean up.

    Args:
        workers: how many threads; each computes on one core, so that their number changes no number.

    Raises:
        UserError: a file cannot be read or written, or a feature is not finite.
    """
    total = sum(job.n_items for job in jobs)
    threads_before = torch.get_num_threads()
    counts: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, initializer=_take_one_core)
    try:
        with (
            _signals() as seen,
            progress_bar(total=total, desc=recipe.method, unit="item", disable=not progress) as bar,
        ):
            waiting = {pool.submit(_work, job, recipe, counts, stop) for job in jobs}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
                bar.update(_drain(counts))
                for future in finished:
                    future.result()
                _stop_if_any(seen)
        _stop_if_any(seen)
    finally:
        # Where something went wrong, shards under way are given up at their next batch.
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads_before)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that come within the block, noted and not raised: what starts threads swallows exceptions.

    A second one ends the process at once.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def note(signum: int, frame: object) -> None:
        seen.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    handlers = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _stop_if_any(seen: list[int]) -> None:
    if seen:
        raise KeyboardInterrupt if seen[0] == signal.SIGINT else Stopped(seen[0])


def _take_one_core() -> None:
    torch.set_num_threads(1)


def _work(job: Job, recipe: Recipe, counts: queue.SimpleQueue[int], stop: threading.Event) -> None:
    for count in compute_job(job, recipe):
        counts.put(count)
        if stop.is_set():
            raise CancelledError


def _drain(counts: queue.SimpleQueue[int]) -> int:
    total = 0
    while not counts.empty():
        total += counts.get()
    return total
