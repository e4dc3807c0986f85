"""RespDataset and RespDataLoader: the batches that a model is trained on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from data_loader.batching import collate_resp
from data_loader.dataset import RespDataset
from data_loader.extract import extract
from data_loader.features import methods
from data_loader.resp_data_loader import RespDataLoader
from data_loader.store import FeatureStore, statistics
from data_loader.store_index import read_index, write_index
from data_loader.tables import build_tables, write_tables
from tests.resp_loader import STFT, batches, loader
from utils.device import choose_precision
from utils.errors import UserError


def test_a_batch_equals_its_items_one_by_one(tiny_data):
    dataset = RespDataset(tiny_data, 2, 2, "processed_stft")
    batch = collate_resp(dataset.__getitems__([3, 0, 5]))
    one_by_one = collate_resp([dataset[i] for i in (3, 0, 5)])
    for together, alone in zip(batch[:3], one_by_one[:3], strict=True):
        assert torch.equal(together, alone)
    assert batch.data.dtype == torch.uint8


@pytest.mark.parametrize("task, level, n_classes", [(1, 1, 2), (1, 2, 7), (2, 1, 3), (2, 2, 5)])
def test_each_task_has_its_classes_and_labels(tiny_data, task, level, n_classes):
    dataset = RespDataset(tiny_data, task, level, "processed_stft")
    assert len(dataset.classes) == n_classes
    named = [dataset.classes[label] for label in dataset.labels]
    assert named == list(dataset.table[f"label_{task}{level}"])


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("options", [STFT, {"input_dir": None, "duration": 1.0}])
def test_the_number_of_workers_changes_nothing(tiny_data, workers, options):
    here = batches(loader(tiny_data, **options))
    there = batches(loader(tiny_data, **options, num_workers=workers))
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.data, b.data)


def test_each_training_item_comes_once_an_epoch_in_a_new_order(tiny_data):
    resp = loader(tiny_data, **STFT)
    first, second = (torch.cat([batch.index for batch in batches(resp, epoch)]) for epoch in (1, 2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == sorted(resp.train_indices.tolist())
    assert first.tolist() != second.tolist()


def test_validation_keeps_the_order_and_is_not_balanced(tiny_data):
    resp = loader(tiny_data, **STFT, balance="oversample")
    index = torch.cat([batch.index for batch in resp.split_validation()])
    assert index.tolist() == resp.valid_indices.tolist()


def test_oversampling_is_chosen_by_name(tiny_data):
    resp = loader(tiny_data, **STFT, balance="oversample")
    counts = np.bincount(torch.cat([batch.target for batch in batches(resp)]))
    assert counts[0] == counts[1]
    with pytest.raises(UserError, match="choose from none, oversample, weights"):
        loader(tiny_data, **STFT, balance="over")


def test_the_filtered_table_has_no_poor_quality_but_the_same_classes(tiny_data):
    resp = loader(tiny_data, **STFT, task=2, level=1, filtered=True)
    assert resp.classes == ("Normal", "Poor Quality", "Adventitious")
    assert 1 not in resp.dataset.labels


def test_waveforms_are_cut_and_padded_with_their_lengths(tiny_data):
    for batch in batches(loader(tiny_data, input_dir=None, duration=1.0)):
        assert batch.data.shape[1] == 8000
        for waveform, length in zip(batch.data, batch.lengths, strict=True):
            assert length <= 8000
            assert not waveform[length:].any()


def test_without_duration_waveforms_are_padded_to_the_longest(tiny_data):
    for batch in batches(loader(tiny_data, input_dir=None)):
        assert batch.data.shape[1] == batch.lengths.max()


def test_features_computed_in_the_step_equal_the_stored_ones(tiny_data):
    stored = loader(tiny_data, **STFT, normalize=False)
    fresh = loader(tiny_data, input_dir=None, frontend="stft", normalize=False)
    a, b = (next(iter(resp.evaluation("valid"))) for resp in (stored, fresh))
    inputs = [resp.frontend().eval()(batch.data, batch.lengths) for resp, batch in ((stored, a), (fresh, b))]
    assert inputs[0].shape == (8, 1, 224, 224)
    torch.testing.assert_close(*inputs, atol=0.5 / 255 + 1e-3, rtol=0)


def test_waveforms_reach_a_model_without_a_front_end(tiny_data):
    resp = loader(tiny_data, input_dir=None, duration=0.5)
    batch = batches(resp)[0]
    assert torch.equal(resp.frontend().eval()(batch.data, batch.lengths), batch.data)
    assert resp.input_spec.shape == (4000,)


def test_features_are_normalised_by_the_training_items(tiny_data):
    resp = loader(tiny_data, **STFT)
    store = FeatureStore(tiny_data / "processed_stft")
    expected = statistics(store, resp.dataset.places[resp.train_indices])
    assert (resp.input_spec.mean, resp.input_spec.std) == expected
    values = torch.cat([resp.frontend().eval()(batch.data).flatten() for batch in batches(resp)])
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01


def test_features_can_be_brought_to_another_deviation(tiny_data):
    resp = loader(tiny_data, **STFT, normalize=0.5)
    values = torch.cat([resp.frontend().eval()(batch.data).flatten() for batch in batches(resp)])
    assert abs(values.std() - 0.5) < 0.01
    assert loader(tiny_data, **STFT, normalize=False).input_spec.std == 1.0
    with pytest.raises(UserError, match="expected true, false or a deviation"):
        loader(tiny_data, **STFT, normalize=-1.0)


def test_augmentation_is_for_training_only(tiny_data):
    resp = loader(tiny_data, **STFT, augment={"time_masks": 2, "time_width": 0.3})
    frontend, batch = resp.frontend(), batches(resp)[0]
    plain = frontend.eval()(batch.data)
    assert torch.equal(plain, frontend.eval()(batch.data))
    assert not torch.equal(plain, frontend.train()(batch.data))


def test_splits_can_be_joined_and_an_unknown_one_is_said(tiny_data):
    both = RespDataset(tiny_data, 2, 1, "processed_stft", ("inter", "intra"))
    assert set(both.table["split"]) == {"inter", "intra"}
    with pytest.raises(UserError, match="its splits: inter, intra, train"):
        RespDataset(tiny_data, 2, 1, "processed_stft", ("extra",))
    with pytest.raises(UserError, match="no items of split itra"):
        loader(tiny_data, **STFT, split="inter+itra")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_is_gone_is_named_whoever_loads_it(own_data, workers):
    resp = loader(own_data, input_dir=None, num_workers=workers)
    path = own_data / resp.dataset.table["path"][resp.train_indices[0]]
    path.unlink()
    with pytest.raises(UserError) as caught:
        list(resp)
    assert caught.value.subject == str(path)


def test_a_recording_that_is_gone_is_named_by_the_statistics_too(own_data):
    for path in (own_data / "BioCAS2022" / "train2022_wav").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"\.wav: is not a readable audio file"):
        loader(own_data, input_dir=None, frontend="stft")


def test_the_input_says_which_weights_and_precision_a_frontend_has(tiny_data):
    resp = loader(tiny_data, input_dir=None, frontend={"method": "wav2vec", "weights": "random"}, normalize=False)
    assert resp.input_spec.weights == "random"
    assert resp.input_spec.params["precision"] == choose_precision("auto", torch.device("cpu"))
    assert loader(tiny_data, input_dir=None, frontend="stft", normalize=False).input_spec.weights is None


@pytest.mark.parametrize("frontend", ["stff", {"method": "stff"}, {"method": ["stft"]}])
def test_a_frontend_that_is_none_is_said(tiny_data, frontend):
    with pytest.raises(UserError, match=r"data_loader\.args\.frontend: there is no feature method"):
        loader(tiny_data, input_dir=None, frontend=frontend)


@pytest.mark.parametrize(
    ("frontend", "said"),
    [
        ({"type": "stft"}, "method: is missing (choose from ast, "),
        ({"method": "mel", "n_mels": 0}, "n_mels: is too small at 8000 Hz"),
        ({"method": "mel", "f_min": 5000.0}, "f_min, data_loader.args.frontend.f_max: 5000.0 to "),
    ],
)
def test_a_parameter_of_a_frontend_that_cannot_be_is_named_by_its_key(tiny_data, frontend, said):
    with pytest.raises(UserError) as raised:
        loader(tiny_data, input_dir=None, frontend=frontend)
    assert str(raised.value).startswith(f"data_loader.args.frontend.{said}")


def test_statistics_do_not_look_at_validation_items(own_data):
    resp = loader(own_data, **STFT, task=2)
    before = resp.input_spec
    for shard, row in resp.dataset.places[resp.valid_indices]:
        path = own_data / "processed_stft" / resp.dataset.store.shard_names[shard]
        values = np.load(path)
        values[row] = 255
        np.save(path, values)
    assert loader(own_data, **STFT, task=2).input_spec == before


def test_processes_share_the_training_items_out(tiny_data):
    for balance in ("none", "oversample", "weights"):
        parts = [
            torch.cat([b.index for b in batches(loader(tiny_data, **STFT, balance=balance, rank=r, world_size=2))])
            for r in range(2)
        ]
        whole = torch.cat([b.index for b in batches(loader(tiny_data, **STFT, balance=balance))])
        assert len(parts[0]) == len(parts[1])
        shared = torch.stack(parts, dim=1).flatten()
        assert torch.equal(shared[: len(whole)], whole)


def make_mel(data_dir, tasks, **options):
    tables = build_tables(data_dir)
    params = methods["mel"].checked({"duration": 0.5}, "mel")
    chosen = {task: tables.of(task) for task in tasks}
    extract(data_dir, methods["mel"], params, chosen, tables.digests, **options)


def test_a_store_of_a_trial_is_used_with_a_warning(own_data, caplog):
    make_mel(own_data, (2,), limit=12)
    dataset = RespDataset(own_data, 2, 1, "processed_mel")
    assert 0 < len(dataset) < 18
    assert "--limit 12" in caplog.text


def test_a_store_without_the_task_or_with_missing_items_is_an_error(own_data):
    make_mel(own_data, (2,))
    with pytest.raises(UserError, match="--tasks 1"):
        RespDataset(own_data, 1, 1, "processed_mel")
    table = own_data / "task2.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1].replace(lines[-1].split(".wav")[0], "9_9.0_0_p1_9", 1)]) + "\n")
    with pytest.raises(UserError, match=r"lacks 1 of .*--force"):
        RespDataset(own_data, 2, 1, "processed_mel")


def fingerprint(data_dir, **options):
    return RespDataset(data_dir, 2, 1, "processed_stft", **options).fingerprint()


@pytest.mark.parametrize("column", ["label_22", "digest", "patient_id"])
def test_the_fingerprint_of_a_split_changes_with_its_labels_audio_and_patients(own_data, column):
    before = fingerprint(own_data)
    assert fingerprint(own_data, splits=("inter", "intra")) == before
    path = own_data / "task2.csv"
    table = pd.read_csv(path, dtype=str)
    row = table.index[table["split"] == "intra"][0]
    table.loc[row, column] = {"label_22": "DAS", "digest": "0" * 16, "patient_id": "7"}[column]
    table.to_csv(path, index=False)
    after = fingerprint(own_data)
    assert {split for split in before if before[split] != after[split]} == {"intra"}


def _as_of_an_earlier_version(data_dir):
    """The tables and the store without digests of the audio."""
    for path in data_dir.glob("*.csv"):
        pd.read_csv(path, dtype=str).drop(columns="digest").to_csv(path, index=False)
    folder = data_dir / "processed_stft"
    content = json.loads((folder / "meta.json").read_text())
    write_index(folder, read_index(folder, content["shards"]).drop(columns="digest"), content["shards"])
    del content["digests"]
    (folder / "meta.json").write_text(json.dumps(content))


def test_a_store_of_other_audio_than_the_tables_tell_of_is_refused(own_data):
    for path in (own_data / "BioCAS2022").rglob("*.wav"):
        waveform, rate = soundfile.read(path)
        soundfile.write(path, waveform[::-1], rate)
    write_tables(build_tables(own_data), own_data)
    with pytest.raises(UserError, match=r"processed_stft: lacks .* made from other recordings.*--force"):
        RespDataLoader(str(own_data), task=2, input_dir="processed_stft")


def test_a_store_of_an_earlier_version_is_read_and_a_task_can_be_added_to_it(own_data):
    expected = [RespDataLoader(str(own_data), task=task, input_dir="processed_stft").dataset for task in (1, 2)]
    tables = build_tables(own_data)
    feature = methods["stft"]
    extract(own_data, feature, {}, {2: tables.of(2)}, tables.digests, force=True)
    _as_of_an_earlier_version(own_data)
    write_tables(tables, own_data)
    extract(own_data, feature, {}, {task: tables.of(task) for task in (1, 2)}, tables.digests)
    for task, then in zip((1, 2), expected, strict=True):
        now = RespDataLoader(str(own_data), task=task, input_dir="processed_stft").dataset
        items = list(range(len(then)))
        assert torch.equal(now.__getitems__(items).data, then.__getitems__(items).data)


def test_without_digests_the_fingerprint_changes_with_what_the_store_was_made_from(own_data):
    _as_of_an_earlier_version(own_data)
    before = fingerprint(own_data)
    meta = own_data / "processed_stft" / "meta.json"
    content = json.loads(meta.read_text())
    content["sources"]["2"] = "another"
    meta.write_text(json.dumps(content))
    assert fingerprint(own_data) != before


def test_a_trial_and_the_whole_have_other_fingerprints(own_data):
    before = fingerprint(own_data)
    meta = own_data / "processed_stft" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"limit": 12}))
    assert fingerprint(own_data).keys() == before.keys()
    assert fingerprint(own_data) != before


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"method": "rtft"}, r"meta\.json: method: there is no feature method 'rtft'"),
        ({"params": {"windows": 3}}, r"meta\.json: params\.windows: is unknown"),
    ],
)
def test_a_store_that_no_checkpoint_could_describe_is_refused_before_training(own_data, changes, what):
    meta = own_data / "processed_stft" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | changes))
    with pytest.raises(UserError, match=what):
        loader(own_data, **STFT)
