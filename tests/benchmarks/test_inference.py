"""Predicting a folder of recordings."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.folder_prediction import CPU_BATCH


@pytest.fixture
def inference(benchmark_script):
    """The script."""
    return benchmark_script("inference")


@pytest.mark.parametrize(
    "n_files, sizes", [(1, [1]), (CPU_BATCH - 1, [CPU_BATCH - 1]), (2 * CPU_BATCH + 3, [CPU_BATCH] * 2)]
)
def test_the_model_alone_has_a_rate_for_any_number_of_files(inference, monkeypatch, n_files, sizes):
    seen = []

    def model(inputs):
        seen.append(len(inputs))
        return inputs.mean((2, 3))

    spec = SimpleNamespace(shape=(1, 4, 4))
    trained = SimpleNamespace(spec=spec, model=model, precision="fp32", device=torch.device("cpu"))
    monkeypatch.setattr("trainer.trained.load_trained", lambda *_: trained)
    # It is for the whole process.
    monkeypatch.setattr("utils.memory.keep_freed_memory", lambda: None)
    assert inference._model_rate("model_best.pth", n_files, "cpu") > 0
    assert seen[4:] == sizes


def test_few_files_are_at_least_one(inference, monkeypatch, tmp_path):
    folders = {}

    def script(*words):
        if "--wav" in words:
            wav = words[words.index("--wav") + 1]
            folders[wav.name] = len(list(wav.iterdir()))
        return 1.0, 10**6

    monkeypatch.setattr(inference, "recordings", lambda _: [tmp_path / f"{number}.wav" for number in range(9)])
    monkeypatch.setattr(inference, "script", script)
    monkeypatch.setattr(inference, "paper_code_rate", lambda *_: lambda: 1.0)
    for rate in ("model_rate", "decoding_rate"):
        monkeypatch.setattr(inference, rate, lambda *_: 1.0)
    said = []
    monkeypatch.setattr(inference, "record", lambda _, lines, *__, **___: said.extend(line.name for line in lines))
    args = Namespace(data_dir=tmp_path, resume=Path("a.pth"), files=3, baseline_files=1, runs=1, device="cpu")
    inference.measure(Namespace(**vars(args), baseline_threads=None), tmp_path)
    assert folders == {"many": 3, "few": 1}
    assert {"test.py --wav, 1 files", "peak memory, 3 files"} <= set(said)
