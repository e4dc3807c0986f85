"""Rebuilding the table of results."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.tiny import ROOT
from trainer.group import read_group


@pytest.fixture
def reproduce(benchmark_script):
    """The script."""
    return benchmark_script("reproduce")


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_step_is_a_command_that_there_is(reproduce, monkeypatch):
    *commands, ablation, table = reproduce.steps()
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
        # Level 1 takes the runs of level 2.
        assert (args.reuse is None) == (not args.config.endswith("_1.json"))
        assert args.reuse is None or Path(args.reuse) in written
        # Of the same folds.
        assert args.reuse is None or Path(args.reuse).name == args.run_id
        splits = {member.get("data_loader.args.split_by", "patient") for member in group.members.values()}
        assert splits == {args.run_id.removeprefix("shift_") if args.run_id != "results" else "patient"}
        written.append(folder)
    # Four tasks: ensembles and students, and ensembles in three other divisions; two tasks: three networks.
    assert len(written) == len(set(written)) == 4 * (2 + 3) + 2 * 3
    # Its tables go to the log of this job, which waits for it.
    assert ablation.words == ("benchmarks/ablation.py", "--wait")
    assert table.words == (
        "benchmarks/results_table.py",
        *(str(folder / "oof" / "metrics.json") for folder in written),
    )


def test_the_table_has_a_row_for_a_group_and_for_each_of_its_members(reproduce, tmp_path, monkeypatch, capsys):
    import results_table

    scores = {"score": 0.9, "score_mean": 0.89, "score_std": 0.012}
    report = {
        "task": "2-1", "parameters": 1200000, **scores, "ci95": {"score": [0.8, 0.95]},
        "decisions": {"argmax": {"score": 0.9}, "score": {"score": 0.91}},
        "worst_subgroup": {"name": "age: 0-3", "score": 0.7}, "minutes_together": 30.4,
        "members": {"a": {**scores, "score": 0.88, "parameters": 100}, "b": {**scores, "parameters": 500}},
        "minutes": {"a-seed0-fold0": 10.0, "a-seed0-fold1": 10.4, "b-seed0-fold0": 5.0, "b-seed0-fold1": 5.0},
        "config": {"a": {"data_loader": {"args": {"task": 2}}}, "b": {"data_loader": {"args": {"task": 2}}}},
    }  # fmt: skip
    config = {"a": {"data_loader": {"args": {"task": 2, "split_by": "age"}}}}
    small = report | {"members": {"a": report["members"]["a"]}, "teacher": "best/results", "parameters": 100}
    for name, content in (("best", report), ("small", small | {"config": config})):
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
        f"| 2-1 | small, folds by age | 1 | 100 {shown}",
    ]
