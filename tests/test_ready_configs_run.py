"""Every config in configs/ trains two batches, on data that is made here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch

from data_loader.features import methods
from data_loader.store import StoreMeta
from data_loader.store_index import write_index
from model import architectures
from model.weights import without_weights
from tests import sounds
from tests.tiny import ROOT
from trainer.setup import make_trainer
from utils.config import ConfigParser, read_config

CONFIGS = {path.stem: read_config(path) for path in sorted((ROOT / "configs").glob("*.json"))}
# An ensemble trains the configs that it names.
TRAINED = [name for name, config in CONFIGS.items() if "arch" in config]
# Of the features whose network would take too long to build here.
SHAPES = {"ast_wav2vec": (768, 128), "wav2vec": (1, 224, 224)}


def write_store(folder, method):
    """A store of random numbers for all items of a folder's tables, as large as a method's features."""
    feature = methods[method]
    shape = SHAPES.get(method) or tuple(feature(torch.zeros(8000), 8000).shape)
    kind = "uint8" if feature.unit_range else "float16"
    store = folder / f"processed_{method}"
    store.mkdir()
    index, shards = [], {}
    for task in (1, 2):
        table = pd.read_csv(folder / f"task{task}.csv")
        part = pd.DataFrame({"task": task, "wav_name": table["wav_name"]})
        for column in ("event_id", "start_ms", "end_ms"):
            part[column] = table[column] if task == 1 else -1
        shards[f"task{task}.npy"] = len(table)
        index.append(part.assign(shard=f"task{task}.npy", row=range(len(table))))
        rows = np.random.default_rng(0).integers(0, 255, (len(table), shape[0] // feature.repeats, *shape[1:]))
        np.save(store / f"task{task}.npy", rows.astype("uint8") if kind == "uint8" else (rows / 255).astype(kind))
    write_index(store, pd.concat(index), shards)
    items = {"1": shards["task1.npy"], "2": shards["task2.npy"]}
    meta = StoreMeta(method, feature.checked({}, method), list(shape), kind, feature.repeats, {}, items, shards=shards)
    (store / "meta.json").write_text(json.dumps(meta.to_json()))


@dataclass
class Folder:
    """Tables and linked audio of some of the tiny set's training items; stores come when they are wanted."""

    path: object
    stores: set[str] = field(default_factory=set)

    def with_store(self, method):
        if method not in self.stores:
            write_store(self.path, method)
            self.stores.add(method)
        return self.path


@pytest.fixture(scope="module")
def few(tiny_data, tmp_path_factory):
    """Five items of five patients: a fold of five validates on one, and four are two batches."""
    return Folder(linked(tiny_data, tmp_path_factory.mktemp("few"), items=5))


@pytest.fixture(scope="module")
def many(tiny_data, tmp_path_factory):
    return Folder(linked(tiny_data, tmp_path_factory.mktemp("many")))


def linked(tiny_data, folder, items=None):
    (folder / "BioCAS2022").symlink_to(tiny_data / "BioCAS2022")
    for name in ("task1", "task2", "task2_filtered"):
        table = pd.read_csv(tiny_data / f"{name}.csv", dtype=str)
        table = table[table["split"] == "train"]
        if items:
            label = "label_11" if name == "task1" else "label_21"
            # The classes by turns.
            order = table.groupby(label).cumcount().sort_values(kind="stable").index
            table = table.loc[order].iloc[:items].assign(patient_id=[f"1000000{n}" for n in range(items)])
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def other_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    sounds.write_urbansound8k(folder, folds=1, classes=sounds.URBAN_TEN)
    sounds.write_fma(folder)
    sounds.write_icbhi(folder)
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_a_ready_config_trains_two_batches(few, many, other_data, tmp_path, name):
    config = ConfigParser(CONFIGS[name])
    architecture = architectures[config["arch"]["type"]]
    at_once = architecture.fits_at_once
    args = config["data_loader"]["args"]
    changes = {"num_workers": 0}
    if config["data_loader"]["type"] == "DigitSumDataLoader":
        changes["batch_size"] = 150
    elif not at_once:
        changes["batch_size"] = 2
    if config["data_loader"]["type"] == "AudioDataLoader":
        changes["data_dir"] = str(other_data)
    elif config["data_loader"]["type"] == "RespDataLoader":
        folder = many if at_once else few
        method = (args.get("input_dir") or "").removeprefix("processed_")
        changes["data_dir"] = str(folder.with_store(method) if method else folder.path)
    network = without_weights(architecture, config.get("arch.args", {}))
    if config["arch"]["type"] == "ASTModel":
        # As the config says, it takes 93 billion multiplications an item.
        network |= {"model_size": "tiny224", "fstride": 16, "tstride": 16}
    config = config.changed("data_loader.args", **changes).changed("arch", args=network)
    config = config.changed("trainer", save_dir=str(tmp_path), tensorboard=False)
    config.make_run_folders()
    trainer = make_trainer(config, torch.device("cpu"))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    figures = trainer._train_epoch(1)
    assert at_once or len(trainer.data_loader) >= 2
    assert np.isfinite(figures["loss"])
    after = trainer.model.state_dict()
    assert any(before[key].shape != after[key].shape or not torch.equal(before[key], after[key]) for key in before)
