"""The README's examples do what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("base", "data_loader", "model", "trainer", "logger", "utils")

CONFIG = {
    "name": "own",
    "arch": {"type": "Perceptron", "args": {"label_dim": 2, "inputs": 64}},
    "data_loader": {
        "type": "RespDataLoader",
        "args": {
            "data_dir": "data",
            "task": 1,
            "level": 1,
            "input_dir": "processed_envelope",
            "validation_split": 0.3,
        },
    },
    "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
    "loss": "brier",
    "metrics": ["balanced_accuracy"],
    "trainer": {"epochs": 1, "save_dir": "saved", "monitor": "max val_balanced_accuracy", "tensorboard": False},
}

# One process for all three commands: importing torch takes longer than the commands.
COMMANDS = """
import pathlib, preprocess, test, train
from data_loader.synthetic import write_synthetic
from utils.cli import run_script

write_synthetic(pathlib.Path("data"), patients=6, recordings_per_patient=3)
for script, argv in (
    (preprocess, ["--data-dir", "data", "--method", "envelope", "--workers", "1"]),
    (train, ["-c", "own.json"]),
    (test, ["-r", "saved/model_best.pth", "--split", "test"]),
):
    assert run_script(script.main, script.parser(), argv) == 0
"""


def test_own_feature_model_loss_and_metric_need_one_file_each_and_no_other_edit(tmp_path):
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("*.py"):
        shutil.copy(script, tmp_path)
    examples = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(examples) == 4
    for name, code in examples:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "own.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    history = next(tmp_path.glob("saved/models/own/*/metrics.jsonl")).read_text(encoding="utf-8")
    assert "val_balanced_accuracy" in history
    meta = json.loads((tmp_path / "data/processed_envelope/meta.json").read_text(encoding="utf-8"))
    assert (meta["method"], meta["params"], meta["shape"]) == ("envelope", {"parts": 64}, [64])
    assert list(tmp_path.glob("saved/test/metrics.json"))


def test_links_and_pictures_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert targets
    assert not [target for target in targets if not (ROOT / target).is_file()]


def test_files_named_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    configs = set(re.findall(r"configs/[\w/]+\.json", text))
    assert configs
    assert not [config for config in configs if not (ROOT / config).is_file()]
