from __future__ import annotations

import subprocess
import sys

import pytest

from utils.errors import UserError
from utils.lock import only_one

HOLDER = """
import sys
from pathlib import Path
from utils.lock import only_one
with only_one(Path(sys.argv[1]), "wait"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_refused_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "a.lock"
    with only_one(path, "wait"):
        with pytest.raises(UserError, match=r"a\.lock: is locked: another process.*\(wait\)"), only_one(path, "wait"):
            pytest.fail("two are in the block")
        assert path.exists(), "the refused one has taken the file away"
    assert list(tmp_path.iterdir()) == []
    with only_one(path, "wait"):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(UserError, match="is locked"), only_one(path, "wait"):
            pass
        holder.kill()
        holder.wait()
    assert path.exists()
    with only_one(path, "wait"):
        pass
    assert list(tmp_path.iterdir()) == []
