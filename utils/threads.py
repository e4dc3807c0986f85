"""Computing several things beside each other on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def thread_map(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's results in the order of `items`, each computed by one thread from start to end.

    As many items are computed at a time as torch uses threads. On a CPU this is faster than to divide each operation
    among the threads where operations are small or other programs run: none waits for the slowest after each
    operation. And a result does not depend on the number of threads.

    Args:
        function: must not use torch's default generator: the threads would draw from it in any order.
        items: taken all at once; what one holds should be small.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(function, items)
        return
    try:
        # Where a result is an error or no longer wanted, `map` takes back what no thread has begun.
        with ThreadPoolExecutor(threads, "compute", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(function, items)
    finally:
        # The pool's threads have set it for those that are started later.
        torch.set_num_threads(threads)
