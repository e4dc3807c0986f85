"""A script that runs in a process of its own and is killed at a counted moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Imported once, in the process whose forks run the scripts.
PRELOAD = (
    "pytest",
    "tests.killed",
    "tests.tiny",
    "tests.test_preprocess",
    "data_loader.extract",
    "data_loader.features.stft",
    "data_loader.synthesis",
    "data_loader.tables",
    "jsonschema.validators",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "model.ast",
    "model.mobilenet",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "trainer.check",
    "trainer.setup",
)
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}
# Not a limit of speed: a process that should have ended has not.
_HANGS = 600


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


class Fork:
    """A function that runs in a fork of a process that has imported everything.

    Args:
        function: of the module's top level; called with `args` and a function that sends one object back.
        output: file that gets what it prints.
    """

    def __init__(self, function: Callable[..., None], *args: Any, output: Path) -> None:
        self._ours, its = _context().Pipe(duplex=False)
        self._output = output
        self.process = _context().Process(target=_run, args=(function, args, its.send, output))
        self.process.start()
        its.close()

    def end(self) -> int:
        """Its exit status, negative for a signal; a process that does not end is killed."""
        self.process.join(_HANGS)
        assert not self.process.is_alive() or self.process.kill(), "it does not end"
        return self.process.exitcode

    def was_killed(self) -> bool:
        """Whether SIGKILL ended it; any other end but success fails the test, with what it printed."""
        status = self.end()
        assert status in (0, -signal.SIGKILL), self._output.read_text(errors="replace")
        return status != 0

    def told(self) -> Any:
        """What it sent."""
        return self._ours.recv()


def _run(function: Callable[..., None], args: tuple, tell: Callable[[Any], None], output: Path) -> None:
    # tqdm's own lock is one between processes, which a killed one would leave behind here.
    tqdm.set_lock(threading.RLock())
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    # As in a process that a shell started.
    multiprocessing.set_start_method("fork", force=True)
    # A kill takes nothing from the kernel: what is written need not reach the disk, which takes most of the time.
    os.fsync = lambda file: None
    function(*args, tell)


def changes(folder: Path, event: str, args: tuple) -> bool:
    """Whether an audit event announces a change to files below a folder."""
    path = str(args[0]) if args else ""
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR)) and path.startswith(str(folder))
    if event == "os.mkdir":
        return path.startswith(str(folder)) and not os.path.lexists(path)
    # Within a tree that is removed, names have no folders.
    return event in _CHANGES and (not path.startswith("/") or (path.startswith(str(folder)) and os.path.lexists(path)))


def die_at_change(folder: Path, at: int | None) -> Callable[[], int]:
    """Kill this process at its `at`-th change to files below a folder, counted from now.

    That is just before the change, or, if it is the writing of a file, in its midst.

    Returns:
        gives the number of changes so far.
    """
    count = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if not changes(folder, event, args):
            return
        count += 1
        if count == at:
            if event == "open":
                Path(args[0]).write_bytes(b"half of")
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


def die_at_call(at: int | None) -> Callable[[], int]:
    """Kill this process at the `at`-th time, from now, that this thread enters or leaves a function of Python or C.

    Returns:
        gives their number so far.
    """
    count, pid = 0, os.getpid()

    def hook(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += 1
        if count == at:
            # Worker processes inherit this, and count on.
            os.kill(pid, signal.SIGKILL)

    sys.setprofile(hook)
    return lambda: count
