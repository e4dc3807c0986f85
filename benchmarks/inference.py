#!/usr/bin/env python3
"""Predicting a folder of recordings: the whole process of test.py --wav against one file at a time (baseline A).

    python benchmarks/inference.py
    python benchmarks/inference.py --device cuda -r saved/model_best.pth

Without a checkpoint, one is trained first: one epoch on 160 recordings. Also measured: the start of the three
commands, and what there is to wait for in any case: importing torch, and decoding the files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import ROOT, Measured, against, in_turn, parser, record

RECORDINGS = 734  # as in the official test set of 2022
COMMANDS = ("train.py", "test.py", "preprocess.py")


def spread(files: list[Path], count: int) -> list[Path]:
    """`count` of the files, evenly spaced."""
    return [files[number * len(files) // count] for number in range(min(count, len(files)))]


def recordings(data_dir: Path) -> list[Path]:
    """All WAV files of the training set."""
    files = sorted((data_dir / "BioCAS2022" / "train2022_wav").resolve().glob("*.wav"))
    if not files:
        sys.exit(f"error: {data_dir}: holds no BioCAS2022/train2022_wav/*.wav (name another --data-dir)")
    return files


def link(files: list[Path], folder: Path) -> Path:
    """A folder with links to the files."""
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def script(*words: object) -> tuple[float, int]:
    """Seconds and peak memory (bytes) of one of the program's commands, or of Python with other words."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            said.seek(0)
            sys.exit(f"{' '.join(map(str, words))} failed:\n{said.read().decode()}")
    return seconds, usage.ru_maxrss * 1024


def train_checkpoint(data_dir: Path, folder: Path, device: str) -> Path:
    """A LightCNN, trained for an epoch on features of a store."""
    (folder / "data").mkdir()
    (folder / "data" / "BioCAS2022").symlink_to((data_dir / "BioCAS2022").resolve())
    data = ("--data-dir", folder / "data")
    script("preprocess.py", *data, "--method", "stft", "--tasks", "2", "--limit", "160")
    changes = ("trainer.epochs=1", f"trainer.save_dir={folder / 'saved'}", "trainer.tensorboard=false")
    script("train.py", "-c", "configs/task2_1_lightcnn.json", *data, *device_option(device), "--set", *changes)
    return folder / "saved" / "model_best.pth"


def device_option(device: str) -> tuple[str, ...]:
    """``-d`` of the program's commands."""
    return ("-d", "cpu") if device == "cpu" else ()


def paper_code_rate(files: list[Path], device: str, threads: int | None) -> Callable[[], float]:
    """Baseline A: feature and network of one file after the other, in fp32; files a second, the start not counted."""
    import torch
    from paper_code import compute

    from model.lightcnn import LightCNN

    if threads:
        torch.set_num_threads(threads)
    model = LightCNN(3, indim=3).to(device).eval()

    def rate() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            for file in files:
                int(model(compute("stft", file)[None].to(device)).argmax())
        return len(files) / (time.perf_counter() - start)

    compute("stft", files[0])  # imports
    return rate


def decoding_rate(files: list[Path]) -> float:
    """Files a second that one thread decodes."""
    from data_loader.audio import read_audio

    start = time.perf_counter()
    for file in files:
        read_audio(file)
    return len(files) / (time.perf_counter() - start)


def model_rate(checkpoint: Path, n_files: int, device: str) -> float:
    """Items a second of the model alone, batched and divided among threads as `test.py --wav` does it.

    In a process of its own, since it settles how the process keeps memory.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_model_rate, (checkpoint, n_files, device))


def _model_rate(checkpoint: Path, n_files: int, device: str) -> float:
    import torch

    from trainer.folder_prediction import CPU_BATCH, GPU_BATCH
    from trainer.trained import load_trained
    from utils.device import autocast
    from utils.memory import keep_freed_memory
    from utils.threads import thread_map

    keep_freed_memory()
    trained = load_trained(checkpoint, torch.device(device))
    batch_size = min(CPU_BATCH if device == "cpu" else GPU_BATCH, n_files)
    inputs = torch.rand(batch_size, *trained.spec.shape, device=device).contiguous(memory_format=torch.channels_last)

    def predict(_: int) -> None:
        with torch.inference_mode(), autocast(trained.precision, trained.device):
            trained.model(inputs).float().cpu()

    list(thread_map(predict, range(4)))  # the first ones are slower
    batches = n_files // batch_size
    start = time.perf_counter()
    list(thread_map(predict, range(batches)))
    return batches * batch_size / (time.perf_counter() - start)


def main() -> None:
    """Measure and record."""
    arguments = parser(__doc__, runs=3)
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of model and features")
    arguments.add_argument("-r", "--resume", type=Path, metavar="CHECKPOINT", help="a LightCNN on stft features")
    arguments.add_argument("--files", type=int, default=RECORDINGS, metavar="N", help="files to predict")
    arguments.add_argument("--baseline-files", type=int, default=40, metavar="N", help="files for baseline A")
    arguments.add_argument(
        "--baseline-threads",
        type=int,
        metavar="N",
        help="of torch in baseline A (default: all; 1 where other programs run)",
    )
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="inference_") as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """All lines of the table."""
    files = recordings(args.data_dir)
    checkpoint = args.resume.resolve() if args.resume else train_checkpoint(args.data_dir, folder, args.device)
    many = link(spread(files, args.files), folder / "many")
    n_files = len(list(many.iterdir()))
    n_few = max(1, n_files // 4)
    few = link(spread(files, n_few), folder / "few")
    peaks: dict[str, list[float]] = {"many": [], "few": []}

    def predict(wav: Path) -> float:
        words = ("test.py", "-r", checkpoint, "--wav", wav, "--out", folder / "out.json", *device_option(args.device))
        seconds, peak = script(*words)
        peaks[wav.name].append(peak / 1e6)
        return len(list(wav.iterdir())) / seconds

    rates = in_turn(
        {
            "A": paper_code_rate(spread(files, args.baseline_files), args.device, args.baseline_threads),
            "test.py": lambda: predict(many),
            "few": lambda: predict(few),
            "model": lambda: model_rate(checkpoint, n_files, args.device),
            "decoding": lambda: decoding_rate(spread(files, args.files)),
        },
        args.runs,
    )
    starts = in_turn(
        {"torch": lambda: script("-c", "import torch")[0]}
        | {command: lambda command=command: script(command, "--help")[0] for command in COMMANDS},
        args.runs,
    )
    baseline = Measured("A: one file at a time", "files/s", rates["A"], note="start not counted")
    torch_start = Measured("python -c 'import torch'", "s", starts["torch"], note="part of the start of test.py --wav")
    small = Measured(f"peak memory, {n_few} files", "MB", peaks["few"])
    lines = [
        baseline,
        against(f"test.py --wav, {n_files} files", "files/s", rates["test.py"], baseline, "whole process"),
        against(f"test.py --wav, {n_few} files", "files/s", rates["few"], baseline, "whole process"),
        against("floor: the model alone, batched", "files/s", rates["model"], baseline),
        against("floor: decoding alone", "files/s", rates["decoding"], baseline, "one thread"),
        small,
        against(f"peak memory, {n_files} files", "MB", peaks["many"], small),
        torch_start,
        *(against(f"{name} --help", "s", starts[name], torch_start, "promised: under 1 s") for name in COMMANDS),
    ]
    record("inference", lines, args, device=args.device, files=n_files)


if __name__ == "__main__":
    main()
