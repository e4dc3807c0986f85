#!/usr/bin/env python3
"""A training loop in a process of its own: `in_own_process` starts it.

    python benchmarks/loop_process.py MODULE CONFIG DEVICE STEPS FOLDER

MODULE has a function `prepare` (bare_loop, lightning_loop, ...). For each line on standard input one turn is run and
its samples a second are printed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from harness import ROOT
from training_case import Turn

from utils.config import ConfigParser, read_config
from utils.memory import keep_freed_memory

KEEPS = "--keep-freed-memory"


@contextlib.contextmanager
def in_own_process(
    module: str, config: ConfigParser, device: torch.device, steps: int, folder: Path, keep_memory: bool = False
) -> Iterator[Turn]:
    """A loop's turns.

    Args:
        module: of the loop.
        steps: of a turn.
        folder: for its files; must not be there yet.
        keep_memory: give the process the program's setting for memory; else it has the defaults of Python and PyTorch.
    """
    folder.mkdir(parents=True)
    path = folder / "config.json"
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    words = (ROOT / "benchmarks" / "loop_process.py", module, path, device.type, steps, folder)
    command = [sys.executable, *map(str, words), *([KEEPS] if keep_memory else [])]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def turn() -> float:
        process.stdin.write("go\n")
        process.stdin.flush()
        if not (line := process.stdout.readline()):
            raise SystemExit(f"error: {module}: the process has ended (to see why: echo go | {' '.join(command)})")
        return float(line)

    try:
        yield turn
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


def main() -> None:
    """Answer the lines of standard input."""
    module, config, device, steps, folder = sys.argv[1:6]
    if KEEPS in sys.argv:
        keep_freed_memory()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Progress bars and messages go the way of errors.
    with contextlib.redirect_stdout(sys.stderr):
        loop = importlib.import_module(module)
        turn = loop.prepare(ConfigParser(read_config(Path(config))), torch.device(device), int(steps), Path(folder))
        for _ in sys.stdin:
            print(turn(), file=answers, flush=True)


if __name__ == "__main__":
    main()
