"""What batches tell of an item beside its class."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from data_loader.batching import collate_resp
from data_loader.dataset import RespDataset
from data_loader.extract import extract
from data_loader.features import methods
from data_loader.resp_data_loader import RespDataLoader
from data_loader.tables import build_tables
from utils.errors import UserError


@pytest.fixture
def recordings(own_data):
    """The tiny set with the features of its recordings."""
    tables = build_tables(own_data)
    extract(own_data, methods["multimel"], {"duration": 10.0}, {2: tables.task2}, tables.digests)
    return own_data


def test_frames_say_which_annotated_event_is_heard_when(recordings):
    dataset = RespDataset(recordings, 2, 1, "processed_multimel", details="frames")
    events = build_tables(recordings).task1
    batch = dataset.__getitems__(list(range(len(dataset))))
    assert batch.details.shape == (len(dataset), 800, 3)
    for frames, path in zip(batch.details, dataset.table["path"], strict=True):
        for frame in range(0, 800, 13):
            if (frames[frame] < 0).any():
                continue
            heard = events[(events["path"] == path) & ((events["start_ms"] / 12.5).round() <= frame)]
            heard = heard[(heard["end_ms"] / 12.5).round() > frame]["label_12"]
            continuous = heard.str.contains("Wheeze|Rhonchi|Stridor").any()
            discontinuous = heard.str.contains("Crackle").any()
            assert frames[frame].tolist() == [len(heard) > 0, continuous, discontinuous]


def test_behind_the_end_of_a_recording_nothing_is_known(recordings):
    dataset = RespDataset(recordings, 2, 1, "processed_multimel", details="frames")
    batch = dataset.__getitems__([0, 1, 2])
    inside = batch.data[:, -1, 0] > 0
    assert inside.any()
    assert not inside.all()
    assert torch.equal(batch.details[..., 0] >= 0, inside)


def test_a_batch_has_the_details_of_its_items(recordings):
    dataset = RespDataset(recordings, 2, 1, "processed_multimel", details="frames")
    together = collate_resp(dataset.__getitems__([4, 0, 2]))
    one_by_one = collate_resp([dataset[item] for item in (4, 0, 2)])
    assert torch.equal(together.details, one_by_one.details)


@pytest.mark.parametrize("input_dir", ["processed_stft", None])
def test_the_finer_class_comes_with_features_and_with_waveforms(tiny_data, input_dir):
    dataset = RespDataset(tiny_data, 1, 1, input_dir, details="fine")
    fine = RespDataset(tiny_data, 1, 2, input_dir)
    batch = collate_resp(dataset.__getitems__([5, 1, 3]))
    assert batch.details.tolist() == fine.labels[[5, 1, 3]].tolist()
    assert batch.target.tolist() == [int(label > 0) for label in batch.details]
    assert dataset.balance_labels.tolist() == fine.labels.tolist()


def test_frames_of_features_that_have_none_are_refused(tiny_data):
    with pytest.raises(UserError, match="features stft have none in time"):
        RespDataset(tiny_data, 2, 1, "processed_stft", details="frames")
    with pytest.raises(UserError, match="frames are those of the features of recordings"):
        RespDataset(tiny_data, 1, 1, "processed_stft", details="frames")


def test_recordings_of_similar_length_come_together_and_each_is_drawn_once(recordings):
    options = {"data_dir": str(recordings), "task": 2, "level": 1, "input_dir": "processed_multimel"}
    loader = RespDataLoader(batch_size=4, normalize=False, **options)
    sizes = loader.dataset.sizes
    stored = loader.dataset.store.gather(loader.dataset.places)
    assert sizes.tolist() == (stored[:, -1, 0] > 0).sum(axis=1).tolist()
    loader.set_epoch(1)
    batches = [batch.index.tolist() for batch in loader]
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(loader.dataset)))
    spread = [np.ptp(sizes[batch]) for batch in batches]
    assert np.mean(spread) < np.ptp(sizes) / 3
