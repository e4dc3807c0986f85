from __future__ import annotations

import threading

import pytest
import torch

from utils.threads import thread_map


@pytest.fixture(params=[1, 3], ids="threads {}".format)
def n_threads(request):
    """Torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(n_threads):
    first_done = threading.Event()

    def square(number):
        if number == 0 and n_threads > 1:
            assert first_done.wait(timeout=30)
        first_done.set()
        return number * number

    assert list(thread_map(square, range(50))) == [number * number for number in range(50)]


def test_each_item_is_computed_on_one_core(n_threads):
    assert set(thread_map(lambda _: torch.get_num_threads(), range(20))) == {1}
    assert torch.get_num_threads() == n_threads
    # Threads that are started later are not held to one core.
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [n_threads]


def test_an_error_is_raised_and_ends_the_work(n_threads):
    done = []

    def fail(number):
        if number == 2:
            raise ValueError("two")
        done.append(number)

    with pytest.raises(ValueError, match="two"):
        list(thread_map(fail, range(10_000)))
    assert len(done) < 10_000 - 1
    assert torch.get_num_threads() == n_threads
