from __future__ import annotations

import os
import select
import signal

import pytest

from tests.killed import Fork
from trainer import part_runs
from utils.errors import UserError
from utils.lock import only_one

# In place of train.py: says who it is; on SIGTERM, ends when something is written to the pipe that it is told.
WAITS = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(not open(sys.argv[1], "rb").read(1)))
print(os.getpid(), os.getsid(0), os.environ["OMP_NUM_THREADS"], flush=True)
while True:
    signal.pause()
"""


def start_and_die(folder, tell) -> None:
    """Start a part, and be killed as soon as it runs."""
    part_runs.SCRIPT = folder / "train.py"
    reader, writer = os.pipe()
    with only_one(folder / "lock", "wait") as lock, os.fdopen(writer, "wb") as output:
        part_runs.start([str(folder / "pipe")], 3, output, lock)
        tell([int(number) for number in os.fdopen(reader).readline().split()])
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_part_whose_group_is_killed_saves_and_ends_and_locks_the_group_until_then(tmp_path):
    (tmp_path / "train.py").write_text(WAITS)
    os.mkfifo(tmp_path / "pipe")
    fork = Fork(start_and_die, tmp_path, output=tmp_path / "output.txt")
    pid, session, threads = fork.told()
    # A Ctrl-C in the terminal of the group does not reach it.
    assert (session, threads) == (pid, 3)
    process, pipe = os.pidfd_open(pid), os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        assert fork.was_killed()
        with pytest.raises(UserError, match="another process is at work"), only_one(tmp_path / "lock", ""):
            pass
        os.write(pipe, b"x")
        # Not a limit of speed: one that should have ended has not.
        assert select.select([process], [], [], 60)[0]
        with only_one(tmp_path / "lock", ""):
            pass
    finally:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
        os.close(pipe)
