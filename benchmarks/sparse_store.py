#!/usr/bin/env python3
"""A feature store of any size that takes no disk space, and what opening it costs.

The files have holes where the features would be, so that a store of 50 GB is made in seconds; its table and its index
are as long as real ones. Run with a folder that `make_sparse` made, this measures one opening in a process of its own
and prints it as JSON, see `opening`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BATCH = 32
BATCHES = 50
SHARD_ITEMS = 512
# What `opening` measures.
MEASURED = {
    "store_s": ("opening the store", "s"),
    "store_mb": ("memory that the store and 50 batches take", "MB"),
    "table_s": ("the run's loader, with its table, to the first batch", "s"),
    "table_mb": ("memory that the loader, its table and 50 batches take", "MB"),
    "start_s": ("start of the process to the first batch", "s"),
    "resident_mb": ("memory of the process", "MB"),
}


def make_sparse(data_dir: Path, items: int, shape: tuple[int, ...] = (1, 224, 224), dtype: str = "uint8") -> None:
    """Write ``task1.csv`` and ``processed_stft/`` for `items` events: four a recording, 32 a patient."""
    import numpy as np
    import pandas as pd

    from data_loader.mapped_shards import npy_header
    from data_loader.store import StoreMeta
    from data_loader.store_index import write_index
    from data_loader.tables import TASK1_COLUMNS
    from utils.files import write_json

    folder = data_dir / "processed_stft"
    folder.mkdir(parents=True)
    item = np.arange(items)
    recording = pd.Series(item // 4)
    patient = 10_000_000 + recording // 8
    name = patient.astype(str) + "_5.0_0_p1_" + recording.astype(str) + ".wav"
    wheezes = item % 5 == 0
    table = pd.DataFrame(
        {
            **{"wav_name": name, "patient_id": patient, "age": 5.0, "gender": 0, "loc": "p1", "rec_id": recording},
            **{"event_id": item, "start_ms": item % 4 * 1000, "end_ms": item % 4 * 1000 + 900},
            "label_11": np.where(wheezes, "Adventitious", "Normal"),
            "label_12": np.where(wheezes, "Wheeze", "Normal"),
            **{"split": "train", "path": "BioCAS2022/train2022_wav/" + name},
        }
    )[TASK1_COLUMNS]
    table.to_csv(data_dir / "task1.csv", index=False)
    n_shards = -(-items // SHARD_ITEMS)
    rows = np.bincount(item // SHARD_ITEMS)
    names = np.array([f"task1-{number:05d}-of-{n_shards:05d}-{rows[number]}.npy" for number in range(n_shards)])
    index = table[["wav_name", "event_id", "start_ms", "end_ms"]].assign(
        task=1, shard=names[item // SHARD_ITEMS], row=item % SHARD_ITEMS
    )
    shards = index.groupby("shard").size().to_dict()
    write_index(folder, index, shards)
    for shard, rows in shards.items():
        with (folder / shard).open("wb") as file:
            header = npy_header((rows, *shape), np.dtype(dtype))
            file.write(header)
            file.truncate(len(header) + rows * int(np.prod(shape)) * np.dtype(dtype).itemsize)
    meta = StoreMeta("stft", {}, list(shape), dtype, 1, {"1": "sparse"}, {"1": items}, shards=shards)
    write_json(folder / "meta.json", meta.to_json())


def resident_mb() -> float:
    """Megabytes of this process in memory, mapped files included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def opening(data_dir: Path) -> dict[str, float]:
    """Seconds and megabytes, see `MEASURED`."""
    import numpy as np

    from data_loader.resp_data_loader import RespDataLoader
    from data_loader.store import FeatureStore

    imported, import_s = resident_mb(), time.perf_counter() - STARTED
    start = time.perf_counter()
    store = FeatureStore(data_dir / "processed_stft")
    store_s = time.perf_counter() - start
    rows = np.array(list(store.meta.shards.values()))
    generator = np.random.default_rng(0)
    for _ in range(BATCHES):
        shards = generator.integers(len(rows), size=BATCH)
        store.gather(np.column_stack([shards, generator.integers(rows[shards])]))
    store_mb = resident_mb() - imported
    del store

    before, start = resident_mb(), time.perf_counter()
    loader = RespDataLoader(str(data_dir), BATCH, validation_split=0.2, input_dir="processed_stft")
    batches = iter(loader)
    next(batches)
    table_s = time.perf_counter() - start
    for _ in range(BATCHES - 1):
        next(batches)
    resident = resident_mb()
    values = (store_s, store_mb, table_s, resident - before, import_s + table_s, resident)
    return dict(zip(MEASURED, values, strict=True))


if __name__ == "__main__":
    print(json.dumps(opening(Path(sys.argv[1]))))
