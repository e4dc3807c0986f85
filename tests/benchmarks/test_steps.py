"""Jobs of many commands, in the background."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import ROOT
from utils.cli import Stopped, run_script


@pytest.fixture
def steps(tmp_path, monkeypatch, own_sigterm):
    """The module, at work in an empty folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("steps", ROOT / "benchmarks" / "steps.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "steps", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_what_is_done_is_left_out_and_a_failure_stops_with_its_status(steps, tmp_path, capfd):
    code = "import sys; open('said', 'a').write(sys.argv[1])"
    a, b, c = (steps.Step(("-c", code, text), (Path(f"{text}.done"),)) for text in "abc")
    (tmp_path / "b.done").touch()
    failing = steps.Step(("-c", "raise SystemExit(3)"))

    def status_of(todo):
        def main(args):
            steps.begin("job", lambda: steps.run(todo), args.wait)

        return run_script(main, steps.parser(""), ["--wait"])

    assert status_of([a, b, c]) == 0
    assert (tmp_path / "said").read_text() == "ac"
    assert "2/3 python -c" in (said := capfd.readouterr().out)
    assert [line.endswith(": done") for line in said.splitlines()] == [False, True, False]
    assert status_of([failing, a]) == 1
    assert "ended with status 3" in capfd.readouterr().err
    assert (tmp_path / "said").read_text() == "ac"


def test_folds_are_done_when_their_ensemble_and_their_scores_are_there(steps, tmp_path):
    step = steps.folds("demo", "a", "--set", "seed=1")
    words = ["train.py", "-c", "configs/demo.json", "--folds", "5", "--run_id", "a", "--set", "seed=1"]
    assert list(step.words) == words
    folder = tmp_path / "saved" / "models" / "demo" / "a"
    (folder / "oof").mkdir(parents=True)
    for name in ("oof/metrics.json", "model_best.pth"):
        assert not step.is_done
        (folder / name).touch()
    assert step.is_done


DRIVER = """
import signal, sys
from pathlib import Path

# A shell that starts the suite in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {benchmarks!r})
import steps
from utils.cli import Stopped, run_script

steps.ROOT = Path({folder!r})
todo = [steps.Step(("-c", {code!r}))]
sys.exit(run_script(lambda args: steps.begin("job", lambda: steps.run(todo), args.wait), steps.parser("")))
"""


def driver(folder, code):
    """The command of a job whose one step runs some code."""
    return [sys.executable, "-c", DRIVER.format(benchmarks=str(ROOT / "benchmarks"), folder=str(folder), code=code)]


def test_it_works_in_the_background_and_a_second_call_says_so(tmp_path):
    os.mkfifo(tmp_path / "go_on")
    command = driver(tmp_path, "open('go_on').read(); print('worked')")

    def call(*argv):
        return subprocess.run([*command, *argv], capture_output=True, text=True, check=False, timeout=60)

    assert "tail -f saved/job.log" in call().stdout
    with (tmp_path / "go_on").open("w"):
        # The step reads: it is at work.
        second, waiting = call(), call("--wait")
        number = int((tmp_path / "saved" / "job.pid").read_text())
        assert f"at work already, process {number}" in second.stdout
        # Whoever waits is not told that it is done.
        assert (second.returncode, waiting.returncode) == (0, 1)
        assert f"error: saved/job.pid: process {number} is at work already" in waiting.stderr
        os.kill(number, 0)
    with (tmp_path / "saved" / "job.pid").open("rb") as file:
        # Locked until it has ended.
        fcntl.flock(file, fcntl.LOCK_EX)
    log = (tmp_path / "saved" / "job.log").read_text()
    assert "1/1 python -c" in log
    assert log.endswith("worked\n")


SAVES = """
import signal

def save(signum, frame):
    open("saved_at", "a").write(signal.Signals(signum).name)
    raise SystemExit(1)

signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
# If nothing stops it.
signal.alarm(60)
open("at_work", "w").close()
while True:
    signal.pause()
"""


def test_a_command_that_is_stopped_is_waited_for(steps, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "at_work")

    class StoppedOnce(subprocess.Popen):
        def wait(self, timeout=None):
            if (tmp_path / "at_work").exists():
                (tmp_path / "at_work").read_text()
                (tmp_path / "at_work").unlink()
                raise Stopped(signal.SIGTERM)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", StoppedOnce)
    with pytest.raises(Stopped):
        steps.run([steps.Step(("-c", SAVES))])
    assert (tmp_path / "saved_at").read_text() == "SIGTERM"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_stopped_stops_its_command_once(tmp_path, signum):
    os.mkfifo(tmp_path / "at_work")
    with subprocess.Popen([*driver(tmp_path, SAVES), "--wait"], start_new_session=True) as job:
        (tmp_path / "at_work").read_text()
        # A terminal sends Ctrl-C to all of the session that is in the foreground.
        os.killpg(job.pid, signum) if signum == signal.SIGINT else os.kill(job.pid, signum)
    assert job.returncode == 128 + signum
    assert (tmp_path / "saved_at").read_text() == "SIGTERM"
