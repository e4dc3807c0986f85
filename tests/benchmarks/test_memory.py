from __future__ import annotations

import importlib.util
import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import ROOT
from utils.cli import run_script


def run_memory(*argv: object) -> int:
    spec = importlib.util.spec_from_file_location("benchmark_memory", ROOT / "benchmarks" / "memory.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return run_script(script.main, script.parser(), list(map(str, argv)))


def test_one_command_draws_the_accuracy_of_each_net_over_length(tmp_path, capsys):
    quick = ["--set", "trainer.epochs=1", "data_loader.args.batch_size=64"]
    assert run_memory("--out", tmp_path, "--lengths", 5, 3, *quick) == 0
    (folder,) = tmp_path.iterdir()
    written = json.loads((folder / "memory.json").read_text())
    assert written["lengths"] == [3, 5]
    assert set(written["accuracy"]) == {"SRN", "LSTM", "GRU"}
    assert (folder / "memory.png").read_bytes().startswith(b"\x89PNG")
    for net, accuracies in written["accuracy"].items():
        log = EventAccumulator(str(folder / "log" / net)).Reload()
        shown = [(event.step, round(event.value, 4)) for event in log.Scalars("memory/accuracy")]
        assert shown == list(zip([3, 5], accuracies, strict=True))
    assert "3 digits: SRN 0." in capsys.readouterr().out


def test_a_length_without_enough_sequences_is_one_error(tmp_path, capsys):
    assert run_memory("--out", tmp_path, "--lengths", 2) == 1
    assert "data_loader.args.length: is 2" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
