#!/usr/bin/env python3
"""Samples a second that a data loader gives, and what a store of a million items costs to open.

    python benchmarks/loading.py --data-dir data/SPRSound

Baseline B is `PaperDataset`: a ``.pt`` file an item, one `torch.load` an item, DataLoader's default collate, two
workers (kept from epoch to epoch, and started before the clock). Ours is the data loader of a training run, with no
workers unless it says so. Both give whole epochs of the same items in random order, batch 32. "Cold" is an epoch
after the files were dropped from the page cache; the note says how much then came from the disk.

Last, the same store in one file, in some and in many, against the one file.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import harness
import numpy as np
import paper_code
import sparse_store
import torch
from harness import Measured, against
from sparse_store import make_sparse
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.encoding import decode
from data_loader.extract import extract
from data_loader.features import methods
from data_loader.resp_data_loader import RespDataLoader
from data_loader.tables import build_tables, read_table, write_tables
from utils.memory import keep_freed_memory

SIZES = (8_605, 100_000, 1_000_000)
SHARDS = (1, 8, 64)


def main() -> None:
    """Run all of it."""
    parser = harness.parser(__doc__, runs=3)
    parser.add_argument("--items", type=int, default=1024, metavar="N", help="recordings (default: %(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    # The other cores belong to the model, and to baseline B's workers.
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    # Not below /tmp, which may be in memory: from there nothing is read cold.
    with tempfile.TemporaryDirectory(dir=args.out) as name:
        folder = Path(name)
        lines = compare(stft_items(args.data_dir, folder / "stft", args.items), args.runs)
        lines += sharded(folder / "stft", args.runs)
        lines += compare(wav2vec_items(folder / "wav2vec", args.items), args.runs)
        lines += openings(folder, args.runs)
    harness.record("loading", lines, args)


@dataclass(frozen=True)
class Items:
    """The same items for both sides.

    Attributes:
        name: what they are.
        paper: baseline B's loader.
        files: its files and the store's.
        ours: makes our loader with a number of workers.
        convert: from a batch as stored to what baseline B's batch holds, on the CPU.
    """

    name: str
    paper: DataLoader
    files: list[Path]
    ours: Callable[[int], RespDataLoader]
    convert: Callable[[Tensor], Tensor]


def stft_items(data_dir: Path, folder: Path, count: int) -> Items:
    """Recordings of the real set, their stft store made in a folder with links to them."""
    folder.mkdir()
    for path in data_dir.iterdir():
        if path.is_dir() and not path.name.startswith("processed_"):
            (folder / path.name).symlink_to(path.resolve())
    tables = build_tables(folder)
    tables = replace(tables, task1=tables.task1.iloc[:0], task2=tables.of(2).iloc[:count])
    write_tables(tables, folder)
    extract(folder, methods["stft"], {}, {2: tables.task2}, tables.digests, workers=os.cpu_count() or 1)
    # The paper's code has pictures of three channels.
    return _items("stft", folder, 2, lambda stored: decode(stored, 3).contiguous())


def wav2vec_items(folder: Path, count: int) -> Items:
    """Random numbers in a store like that of ast_wav2vec, (768, 128) float16."""
    shape = (768, 128)
    make_sparse(folder, count, shape, "float16")
    generator = np.random.default_rng(0)
    for shard in (folder / "processed_stft").glob("task1-*.npy"):
        stored = np.load(shard, mmap_mode="r+")
        stored[:] = generator.standard_normal(stored.shape, dtype=np.float32)
        stored.flush()
    return _items("wav2vec", folder, 1, decode)


def _items(name: str, data_dir: Path, task: int, convert: Callable[[Tensor], Tensor]) -> Items:
    def ours(workers: int) -> RespDataLoader:
        # To normalise is the step's work; its statistics would read half of the items before the clock starts.
        args = {"batch_size": 32, "num_workers": workers, "task": task, "input_dir": "processed_stft"}
        return RespDataLoader(str(data_dir), **args, normalize=False)

    dataset = ours(0).dataset
    paper_dir = data_dir / "paper"
    paper_dir.mkdir()
    files = [paper_dir / f"{number}.pt" for number in range(len(dataset))]
    for number, file in enumerate(files):
        torch.save(convert(dataset[number][0][None])[0].clone(), file)
    paper_dataset = paper_code.PaperDataset(files, dataset.labels.tolist())
    paper = DataLoader(paper_dataset, 32, shuffle=True, num_workers=2, persistent_workers=True)
    return Items(name, paper, [*files, *(data_dir / "processed_stft").iterdir()], ours, convert)


def compare(items: Items, runs: int) -> list[Measured]:
    """Both sides and a floor, warm and cold."""
    return [*_lines(*warm(items, runs)), *_lines(*cold(items, runs))]


def warm(items: Items, runs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """From memory: the speeds, and what a reader should know of them."""
    loaders = {workers: items.ours(workers) for workers in (0, 2)}
    dataset = loaders[0].dataset
    stored = dataset.store.gather(dataset.places)

    def copied() -> int:
        order = np.random.default_rng(0).permutation(len(stored))
        return sum(len(stored[order[at : at + 32]]) for at in range(0, len(stored), 32))

    contestants = {
        "baseline B": lambda: speed(lambda: paper_epoch(items)),
        "ours": lambda: speed(lambda: our_epoch(loaders[0])),
        "ours, 2 workers": lambda: speed(lambda: our_epoch(loaders[2])),
        "ours, float32 on the CPU": lambda: speed(lambda: our_epoch(loaders[0], items.convert)),
        "floor: rows copied in memory": lambda: speed(copied),
    }
    # Workers start, files come into memory, and the process gets the memory that it goes on with.
    for run in contestants.values():
        run()
    values = harness.in_turn({f"{items.name}, warm: {name}": run for name, run in contestants.items()}, runs)
    picture = tuple(items.convert(torch.from_numpy(stored[:1])).shape[1:])
    notes = [f"{len(stored):,} items, float32 {picture}", f"{stored.dtype} {stored.shape[1:]}"]
    return values, dict(zip(values, notes, strict=False))


def cold(items: Items, runs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """From the disk: the speeds of one epoch each, and how much was read for it."""
    read = {}

    def dropped(name: str, run: Callable[[], float]) -> float:
        drop(items.files)
        before = kilobytes_read()
        value = run()
        read[name] = f"{(kilobytes_read() - before) / 1000:,.0f} MB from the disk"
        return value

    def sequential() -> int:
        files = [path for path in items.files if path.suffix == ".npy"]
        return len(items.paper.dataset) if all(path.read_bytes() for path in files) else 0

    # A loader of its own each time: pages that one has mapped stay in memory.
    contestants = {
        "baseline B": lambda: speed(lambda: paper_epoch(items), 0),
        "ours": lambda: speed(partial(our_epoch, items.ours(0)), 0),
        "ours, float32 on the CPU": lambda: speed(partial(our_epoch, items.ours(0), items.convert), 0),
        "floor: the store's files read in order": lambda: speed(sequential, 0),
    }
    named = {f"{items.name}, cold: {name}": run for name, run in contestants.items()}
    values = harness.in_turn({name: partial(dropped, name, run) for name, run in named.items()}, runs)
    return values, read


def _lines(values: dict[str, list[float]], notes: dict[str, str], unit: str = "samples/s") -> list[Measured]:
    """The first is the baseline."""
    (name, base), *others = values.items()
    baseline = Measured(name, unit, base, note=notes.get(name, ""))
    return [baseline, *(against(name, unit, its, baseline, notes.get(name, "")) for name, its in others)]


def sharded(data_dir: Path, runs: int) -> list[Measured]:
    """Whole epochs of the recordings of a folder, warm and cold, from stores of `SHARDS` files."""
    tables = build_tables(data_dir)
    recordings = tables.of(2)[tables.of(2)["wav_name"].isin(read_table(data_dir, 2)["wav_name"])]
    names = {count: f"processed_stft_{count}" for count in SHARDS}
    for count, name in names.items():
        options = {"workers": os.cpu_count() or 1, "n_shards": count, "force": True}
        stored, _ = extract(data_dir, methods["stft"], {}, {2: recordings}, tables.digests, **options)
        stored.rename(data_dir / name)

    def loader(count: int) -> RespDataLoader:
        return RespDataLoader(str(data_dir), 32, task=2, input_dir=names[count], normalize=False)

    def from_disk(count: int) -> float:
        drop((data_dir / names[count]).iterdir())
        return speed(partial(our_epoch, loader(count)), 0)

    shown = {count: f"{count} shard{'s' if count > 1 else ''}" for count in SHARDS}
    loaders = {count: loader(count) for count in SHARDS}
    kept = {f"store, warm: {shown[n]}": partial(speed, partial(our_epoch, loaders[n])) for n in SHARDS}
    for run in kept.values():
        run()
    lines = _lines(harness.in_turn(kept, runs), {})
    return lines + _lines(
        harness.in_turn({f"store, cold: {shown[n]}": partial(from_disk, n) for n in SHARDS}, runs), {}
    )


def openings(folder: Path, runs: int) -> list[Measured]:
    """What stores of three sizes cost to open, each in a process of its own."""
    measured = {}
    for size in SIZES:
        make_sparse(folder / str(size), size)
        command = [sys.executable, sparse_store.__file__, str(folder / str(size))]
        outputs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(runs)]
        measured[size] = [json.loads(output.stdout) for output in outputs]
    lines = []
    for key, (what, unit) in sparse_store.MEASURED.items():
        values = {f"{what}, {size:,} items": [result[key] for result in measured[size]] for size in SIZES}
        lines += _lines(values, {}, unit)
    return lines


def paper_epoch(items: Items) -> int:
    """One epoch of baseline B; how many items came."""
    return sum(len(data) for data, _ in items.paper)


def our_epoch(loader: RespDataLoader, convert: Callable[[Tensor], Tensor] = lambda stored: stored) -> int:
    """One epoch of ours; how many items came."""
    return sum(len(convert(batch.data)) for batch in loader)


def speed(run: Callable[[], int], least: float = 0.3) -> float:
    """Items a second of whole epochs: one, and more until `least` seconds have passed."""
    start = time.perf_counter()
    items = run()
    while (spent := time.perf_counter() - start) < least:
        items += run()
    return items / spent


def drop(files: Iterable[Path]) -> None:
    """Take files out of the page cache."""
    gc.collect()  # A loader that is gone has to unmap its files: a page that is mapped stays.
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def kilobytes_read() -> int:
    """What the machine has read from its disks so far."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counters["pgpgin"])


if __name__ == "__main__":
    main()
