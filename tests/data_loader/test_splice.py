"""Recordings made of two, with the class that follows from what is heard then."""

from __future__ import annotations

import pytest
import torch

from data_loader.batching import Batch
from data_loader.classes import resp_classes
from data_loader.details import FrameTargets
from data_loader.splice import Splice
from data_loader.tables import TABLE_FILES

FRAMES = 200
NORMAL, POOR_QUALITY, CAS, DAS, BOTH = range(5)
HEARD = {POOR_QUALITY: (0, 0, 0), NORMAL: (1, 0, 0), CAS: (1, 1, 0), DAS: (1, 0, 1), BOTH: (1, 1, 1)}


def batch_of(*classes, lengths=None):
    """Recordings whose every frame is heard as their class says; the number of the recording is their level."""
    lengths = lengths or [FRAMES] * len(classes)
    data = torch.zeros(len(classes), 4, 64, FRAMES, dtype=torch.uint8)
    details = torch.full((len(classes), FRAMES, 3), -1.0)
    for number, (name, length) in enumerate(zip(classes, lengths, strict=True)):
        data[number, :3, :, :length] = number + 1
        data[number, 3, :, :length] = 255
        details[number, :length] = torch.tensor(HEARD[name], dtype=torch.float32)
    return Batch(data, torch.tensor(classes), torch.arange(len(classes)), details=details)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def test_without_a_share_nothing_is_changed_or_drawn():
    batch, state = batch_of(NORMAL, CAS), torch.get_rng_state()
    assert Splice(0.0, 2)(batch) is batch
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stretch_comes_with_what_is_heard_in_it_and_the_class_follows():
    batch = batch_of(CAS, DAS, NORMAL, POOR_QUALITY, BOTH, CAS, NORMAL, DAS)
    before = batch.data.clone()
    spliced = Splice(1.0, 2)(batch)
    assert torch.equal(batch.data, before)
    seen = set()
    for row, (data, details, target) in enumerate(zip(spliced.data, spliced.details, spliced.target, strict=True)):
        of_frames = data[0, 0].long() - 1
        assert torch.equal(data[:3], data[:1, :1].expand(3, 64, FRAMES))
        others = of_frames[of_frames != row]
        assert others.unique().numel() <= 1
        assert 0.19 * FRAMES < len(others) < 0.61 * FRAMES or not len(others)
        parts = {int(batch.target[number]) for number in of_frames.unique()}
        heard = torch.tensor([HEARD[part] for part in parts]).amax(0)
        assert HEARD[int(target)] == tuple(heard.tolist())
        assert torch.equal(details, batch.details[of_frames, torch.arange(FRAMES)])
        seen |= {(frozenset(parts), int(target))}
    assert any(len(parts) == 2 and target not in parts for parts, target in seen)


def test_no_stretch_reaches_behind_the_end_of_either_recording():
    lengths = [200, 60, 120, 30, 90, 9]
    batch = batch_of(*[CAS] * 6, lengths=lengths)
    spliced = Splice(1.0, 2)(batch)
    assert torch.equal(spliced.data[:, 3], batch.data[:, 3])
    assert torch.equal(spliced.details >= 0, batch.details >= 0)
    assert not torch.equal(spliced.data, batch.data)


def test_what_is_left_of_an_event_in_a_few_frames_is_not_heard():
    batch = batch_of(NORMAL, NORMAL)
    batch.details[0, 10:17, 1] = 1
    batch.details[1, 10:18, 1] = 1
    assert Splice(1.0, 2)._target(batch.details).tolist() == [NORMAL, CAS]


def test_filtered_data_gets_no_recording_in_which_nothing_is_heard():
    batch = batch_of(*[NORMAL, CAS, DAS] * 8)
    # Each is heard for a moment, every other one at another time: a stretch of one may silence another.
    heard = torch.arange(FRAMES) // 20 == torch.tensor([2, 7] * 12)[:, None]
    batch.details[~heard] = 0
    spliced = Splice(1.0, 2)(batch)
    silent = spliced.target == POOR_QUALITY
    torch.manual_seed(0)
    filtered = Splice(1.0, 2, filtered=True)(batch)
    assert silent.any()
    assert not silent.all()
    for kept, other, own in zip(filtered, spliced, batch, strict=True):
        if own is not None:
            assert torch.equal(kept[silent], own[silent])
            assert torch.equal(kept[~silent], other[~silent])


def test_a_share_of_the_recordings_gets_a_stretch():
    batch = batch_of(*[NORMAL, CAS] * 120)
    changed = (Splice(0.25, 2)(batch).data != batch.data).flatten(1).any(1).float().mean()
    assert 0.15 < changed < 0.35


def test_level_1_knows_adventitious_only():
    assert Splice(1.0, 1)._target(batch_of(*HEARD).details).tolist() == [1, 0, 2, 2, 2]
    assert resp_classes(2, 1)[2] == "Adventitious"


@pytest.mark.real
def test_the_class_of_every_real_recording_follows_from_its_events(real_tables, tmp_path):
    table = real_tables.of(2)
    real_tables.of(1).to_csv(tmp_path / TABLE_FILES[1], index=False)
    heard = torch.from_numpy(FrameTargets(tmp_path, table, 1232, 12.5)[range(len(table))])
    for level in (1, 2):
        names = [resp_classes(2, level)[number] for number in Splice(1.0, level)._target(heard)]
        assert names == table[f"label_2{level}"].tolist()
