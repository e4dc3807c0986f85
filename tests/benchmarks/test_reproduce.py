"""Rebuilding the table of results."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import ROOT
from trainer.group import read_group
from utils.cli import run_script


@pytest.fixture
def reproduce(tmp_path, monkeypatch, own_sigterm):
    """The script, at work in an empty folder."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "benchmarks" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reproduce", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_step_is_a_command_that_there_is(reproduce, monkeypatch):
    *commands, table = reproduce.steps()
    parsers = {f"{name}.py": script(name).parser() for name in ("preprocess", "train")}
    monkeypatch.chdir(ROOT)
    written = []
    features = set()
    for step in commands:
        args = parsers[step.words[0]].parse_args(step.words[1:])
        if step.words[0] == "preprocess.py":
            features.add(f"processed_{args.method}")
            continue
        group = read_group(args)
        assert {member.get("data_loader.args.input_dir") for member in group.members.values()} <= features
        folder = group.save_root / "models" / group.name / args.run_id
        assert step.done == (folder / "model_best.pth", folder / "oof" / "metrics.json")
        # A student comes after its teacher, and is one network.
        assert args.teacher is None or (Path(args.teacher) in written and len(group.members) == 1)
        written.append(folder)
    assert len(written) == 8
    assert table.words == (
        "benchmarks/results_table.py",
        *(str(folder / "oof" / "metrics.json") for folder in written),
    )


def say(reproduce, *texts, done=()):
    """Steps that append a text to a file."""
    code = "import sys; open('said', 'a').write(sys.argv[1])"
    return [reproduce.Step(("-c", code, text), (Path(f"{text}.done"),) if text in done else ()) for text in texts]


def test_what_is_done_is_left_out_and_a_failure_stops_with_its_status(reproduce, tmp_path, monkeypatch, capfd):
    (tmp_path / "b.done").touch()
    steps = say(reproduce, *"abc", done="bc")
    monkeypatch.setattr(reproduce, "steps", lambda: steps)
    assert run_script(reproduce.main, reproduce.parser(), ["--wait"]) == 0
    assert (tmp_path / "said").read_text() == "ac"
    failing = reproduce.Step(("-c", "raise SystemExit(3)"))
    monkeypatch.setattr(reproduce, "steps", lambda: [failing, *steps])
    assert run_script(reproduce.main, reproduce.parser(), ["--wait"]) == 1
    assert "ended with status 3" in capfd.readouterr().err
    assert (tmp_path / "said").read_text() == "ac"


DRIVER = """
import sys
from pathlib import Path

sys.path.insert(0, {benchmarks!r})
import reproduce
from utils.cli import run_script

reproduce.ROOT = Path({folder!r})
reproduce.steps = lambda: [reproduce.Step(("-c", "open('go_on').read(); print('worked')"))]
sys.exit(run_script(reproduce.main, reproduce.parser()))
"""


def test_it_works_in_the_background_and_a_second_call_says_so(tmp_path):
    os.mkfifo(tmp_path / "go_on")
    driver = DRIVER.format(benchmarks=str(ROOT / "benchmarks"), folder=str(tmp_path))

    def call():
        done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    assert "tail -f saved/reproduce.log" in call()
    with (tmp_path / "go_on").open("w"):
        # The step reads: it is at work.
        said = call()
        number = int((tmp_path / "saved" / "reproduce.pid").read_text())
        assert f"at work already, process {number}" in said
        os.kill(number, 0)
    with (tmp_path / "saved" / "reproduce.pid").open("rb") as file:
        # Locked until it has ended.
        fcntl.flock(file, fcntl.LOCK_EX)
    log = (tmp_path / "saved" / "reproduce.log").read_text()
    assert "1/1 python -c" in log
    assert log.endswith("worked\n")


def test_the_table_has_a_row_for_a_group_and_for_each_of_its_members(reproduce, tmp_path, monkeypatch, capsys):
    import results_table

    scores = {"score": 0.9, "score_mean": 0.89, "score_std": 0.012}
    report = {
        "task": "2-1", "parameters": 1200000, **scores, "ci95": {"score": [0.8, 0.95]},
        "decisions": {"argmax": {"score": 0.9}, "score": {"score": 0.91}},
        "worst_subgroup": {"name": "age: 0-3", "score": 0.7}, "minutes_together": 30.4,
        "members": {"a": {**scores, "score": 0.88, "parameters": 100}, "b": {**scores, "parameters": 500}},
        "minutes": {"a-seed0-fold0": 10.0, "a-seed0-fold1": 10.4, "b-seed0-fold0": 5.0, "b-seed0-fold1": 5.0},
    }  # fmt: skip
    small = report | {"members": {"a": report["members"]["a"]}, "teacher": "best/results", "parameters": 100}
    for name, content in (("best", report), ("small", small)):
        path = tmp_path / name / "results" / "oof" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    files = [str(tmp_path / name / "results" / "oof" / "metrics.json") for name in ("best", "small")]
    monkeypatch.setattr(sys, "argv", ["results_table.py", *files])
    results_table.main()
    _, _, *rows = capsys.readouterr().out.splitlines()
    shown = "| **0.900** [0.800, 0.950] | 0.890, 0.012 | 0.910 | 0.700 age: 0-3 | 30 |"
    assert rows == [
        f"| 2-1 | best | 4 | 1,200,000 {shown}",
        "| 2-1 | a | 2 | 200 | 0.880 | 0.890, 0.012 |  |  | 20 |",
        "| 2-1 | b | 2 | 1,000 | 0.900 | 0.890, 0.012 |  |  | 10 |",
        f"| 2-1 | small | 1 | 100 {shown}",
    ]
