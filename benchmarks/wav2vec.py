#!/usr/bin/env python3
"""Features from wav2vec 2.0 against baseline A, and how well they agree with it.

Baseline A is `paper_code.preprocess`: one file at a time, fp32, all 12 layers, two threads. Ours runs as preprocess.py
does: two workers with a thread each, or one that feeds the GPU (``--device cuda``; A then runs on the GPU too). Both
read the audio and write what they computed. The items are a fixed random part of the real set. The weights are random
unless ``--weights`` names some: speed does not depend on them, agreement may.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import numpy as np
import paper_code
import torch
from harness import Measured, against, in_turn, record

from data_loader.audio import cut_event, read_audio
from data_loader.batching import similar_batches
from data_loader.features import methods
from data_loader.features.common import resample
from data_loader.features.linear import Linear
from data_loader.features.wav2vec_fast import fast_network
from data_loader.features.wav2vec_network import KERNELS, RATE, STRIDES, load_network
from data_loader.jobs import Item, Job
from data_loader.shard_workers import compute_jobs
from data_loader.shards import Recipe
from data_loader.tables import build_tables
from utils.memory import keep_freed_memory

CORES = 2
LAYERS = {"wav2vec": 12, "ast_wav2vec": 8}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_items(data_dir: Path, recordings: int, events: int) -> dict[str, list[Item]]:
    """A fixed random part of the recordings, and of the events, each from short to long."""
    tables = build_tables(data_dir)
    recorded = tables.task2.sample(min(recordings, len(tables.task2)), random_state=0)
    lengths = {path: len(read_audio(data_dir / path)[0]) for path in recorded["path"]}
    cut = tables.task1.sample(min(events, len(tables.task1)), random_state=0)
    cut = cut.assign(length=cut["end_ms"] - cut["start_ms"]).sort_values("length")
    return {
        "recordings": [(path, 0, -1) for path in sorted(lengths, key=lengths.get)],
        "events": [(path, int(start), int(end)) for path, start, end in cut[["path", "start_ms", "end_ms"]].values],
    }


def ours(items: list[Item], method: str, precision: str, args: argparse.Namespace) -> float:
    """Items a second of the program."""
    workers = CORES if args.device == "cpu" else 1
    jobs = [Job({f"{number}.npy": items[number::workers]}) for number in range(workers)]
    with tempfile.TemporaryDirectory() as folder:
        params = {"weights": args.weights, "precision": precision}
        recipe = Recipe(args.data_dir, Path(folder), method, params, args.device)
        start = time.perf_counter()
        compute_jobs(jobs, recipe, workers, progress=False)
        return len(items) / (time.perf_counter() - start)


def paper(items: list[Item], args: argparse.Namespace) -> float:
    """Items a second of baseline A; which layer it keeps makes no difference."""
    torch.set_num_threads(CORES)
    preprocess = paper_code.preprocess if args.device == "cpu" else one_file_on_gpu
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        preprocess([(args.data_dir / path, first, last) for path, first, last in items], "wav2vec", Path(folder))
        return len(items) / (time.perf_counter() - start)


def one_file_on_gpu(items: list[Item], method: str, out_dir: Path) -> None:
    """Baseline A with the network on the GPU."""
    network = _on_gpu()
    for number, (path, start_ms, end_ms) in enumerate(items):
        waveform, rate = paper_code.load_cut(path, start_ms, end_ms)
        batch = torch.from_numpy(waveform).float().cuda()[None]
        with torch.inference_mode():
            layers, _ = network.extract_features(resample(batch, rate, RATE, torch.tensor([batch.shape[1]]).cuda())[0])
            frames = layers[LAYERS[method] - 1].transpose(1, 2)[None]
            size = (paper_code.SIZE, paper_code.SIZE)
            picture = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
        torch.save(picture[0].cpu(), out_dir / f"{number}.pt")


@functools.cache
def _on_gpu() -> torch.nn.Module:
    return paper_code.network().cuda()


def flops(samples: int, layers: int) -> float:
    """Floating-point operations of the network's products for one item, a multiplication and an addition each."""
    total, frames, channels = 0.0, samples, 1
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        frames = (frames - kernel) // stride + 1
        total += frames * 512 * kernel * channels
        channels = 512
    total += frames * 768 * (512 + 128 * 48)
    total += layers * frames * (4 * 768 * 768 + 2 * 768 * 3072 + 2 * frames * 768)
    return 2 * total


def peak(device: str, precision: str, seconds: float = 0.5) -> float:
    """Operations a second of a large product of the network's shape, on as many cores as ours has."""
    rows, workers = (2000, CORES) if device == "cpu" else (50_000, 1)
    dtype = PRECISIONS[precision]
    product = Linear(torch.randn(3072, 768, device=device), None, dtype)

    def work(x: torch.Tensor) -> float:
        torch.set_num_threads(1)
        product(x)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            product(x)
            count += 1
            if device != "cpu":
                torch.cuda.synchronize()
        return count * 2 * len(x) * 768 * 3072 / (time.perf_counter() - start)

    inputs = [torch.randn(rows, 768, device=device, dtype=dtype) for _ in range(workers)]
    with torch.inference_mode(), ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(work, inputs))


def floor(items: list[Item], layers: int, precision: str, args: argparse.Namespace) -> float:
    """Items a second if there were nothing but the network's products, at `peak`."""
    total = 0.0
    for item in items:
        waveform, rate = _cut(args.data_dir, item)
        total += flops(max(400, len(waveform) * RATE // rate), layers)
    return len(items) * peak(args.device, precision) / total


def _cut(data_dir: Path, item: Item) -> tuple[np.ndarray, int]:
    recording, rate = read_audio(data_dir / item[0])
    return cut_event(recording, rate, item[1], item[2]), rate


def agreement(items: list[Item], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """For each precision and layer the largest relative RMS error, and the lowest correlation, of an item's frames.

    Ours in batches; against torchaudio's network with the same weights, on one item at a time, in fp32 on the CPU.
    """
    device = torch.device(args.device)
    network = load_network(args.weights)
    fast = {name: fast_network(args.weights, device, dtype) for name, dtype in PRECISIONS.items()}
    worst = {f"{name}, layer {layer}": {"error": 0.0, "correlation": 1.0} for name in fast for layer in (8, 12)}
    waveforms = [_cut(args.data_dir, item) for item in items]
    with torch.inference_mode():
        for rows, batch, lengths, rate in similar_batches(waveforms, 8):
            batch, lengths = resample(batch, rate, RATE, lengths)
            alone = [network.extract_features(item[None, :n])[0] for item, n in zip(batch, lengths, strict=True)]
            for key, figures in worst.items():
                name, layer = key.split(", layer ")
                frames, counts = fast[name](batch.to(device), lengths.to(device), int(layer))
                for row in range(len(rows)):
                    found, expected = frames[row, : counts[row]].cpu(), alone[row][int(layer) - 1][0]
                    error = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
                    same = float(torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1])
                    figures["error"] = max(figures["error"], error)
                    figures["correlation"] = min(figures["correlation"], same)
    return worst


def main(args: argparse.Namespace) -> None:
    """Measure, print and record."""
    keep_freed_memory()
    chosen = choose_items(args.data_dir, args.recordings, args.events)
    auto = methods["wav2vec"].settled({"precision": "auto"}, args.device)["precision"]
    contestants: dict[str, Callable[[], float]] = {}
    for kind, items in chosen.items():
        contestants[f"A, {kind}"] = functools.partial(paper, items, args)
        for method, layers in LAYERS.items():
            contestants[f"{method}, {kind}"] = functools.partial(ours, items, method, auto, args)
            contestants[f"floor of {method}, {kind}"] = functools.partial(floor, items, layers, auto, args)
        contestants[f"wav2vec in fp32, {kind}"] = functools.partial(ours, items, "wav2vec", "fp32", args)

    # The first call makes the networks.
    for precision in {auto, "fp32"}:
        ours(chosen["events"][:4], "wav2vec", precision, args)
    paper(chosen["events"][:2], args)
    values = in_turn(contestants, args.runs)
    lines = []
    for kind in chosen:
        base = Measured(f"A, {kind}", f"{kind}/s", values[f"A, {kind}"], note="one file at a time, fp32, 12 layers")
        lines.append(base)
        for name in values:
            if name.endswith(f", {kind}") and name != base.name:
                note = "products alone, at the measured peak" if name.startswith("floor") else ""
                note = note or ("" if "fp32" in name else auto)
                lines.append(against(name, base.unit, values[name], base, note))
    agreed = agreement(chosen["recordings"][::6] + chosen["events"][::5], args)
    for key, figures in agreed.items():
        print(f"{key}: relative RMS error up to {figures['error']:.2g}, correlation from {figures['correlation']:.6f}")
    record("wav2vec", lines, args, agreement=agreed)


if __name__ == "__main__":
    parser = harness.parser(__doc__, runs=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where ours computes (default: cpu)")
    parser.add_argument("--recordings", type=int, default=16, metavar="N", help="how many (default: 16)")
    parser.add_argument("--events", type=int, default=40, metavar="N", help="how many (default: 40)")
    parser.add_argument("--weights", default="random", help='a file, "hub" or "random" (default)')
    sys.exit(main(parser.parse_args()))
