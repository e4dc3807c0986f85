"""Augmentation of training batches."""

from __future__ import annotations

import pytest
import torch

from data_loader.augment import Augmentation, place, roll_by_index, roll_rows
from data_loader.batching import Batch
from utils.errors import UserError


@pytest.fixture
def waveforms():
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(4, 1000, generator=generator)
    lengths = torch.tensor([1000, 700, 500, 1])
    return batch * (torch.arange(1000) < lengths[:, None]), lengths


def test_by_default_nothing_is_changed(waveforms):
    batch, lengths = waveforms
    assert torch.equal(Augmentation().waveform(batch, lengths), batch)
    pictures = torch.rand(2, 1, 8, 8)
    assert torch.equal(Augmentation().spectrogram(pictures), pictures)


def test_what_lies_behind_a_waveform_stays_zero(waveforms):
    batch, lengths = waveforms
    torch.manual_seed(0)
    changed = Augmentation(gain_db=6, noise_db=10, shift=0.5).waveform(batch, lengths)
    assert not torch.equal(changed, batch)
    assert not changed[torch.arange(1000) >= lengths[:, None]].any()


def test_a_shift_moves_samples_in_a_circle(waveforms):
    batch, lengths = waveforms
    torch.manual_seed(0)
    moved = Augmentation(shift=1.0).waveform(batch, lengths)
    assert torch.equal(moved.sort(dim=1).values, batch.sort(dim=1).values)
    assert not torch.equal(moved, batch)


@pytest.mark.parametrize("roll", [roll_rows, roll_by_index])
def test_each_row_is_rolled_within_its_length(waveforms, roll):
    batch, lengths = waveforms
    by = torch.tensor([3, -699, 0, 5])
    rolled = roll(batch, lengths, by)
    for row, waveform, length, samples in zip(rolled, batch, lengths.tolist(), by.tolist(), strict=True):
        assert torch.equal(row[:length], waveform[:length].roll(samples))
        assert not row[length:].any()


def test_a_generator_of_its_own_decides_and_leaves_the_default_one_alone(waveforms):
    augmentation = Augmentation(gain_db=6, noise_db=10, shift=0.5)
    before = torch.get_rng_state()
    one, same, other = (augmentation.waveform(*waveforms, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_has_the_level_asked_for(waveforms):
    batch, lengths = waveforms
    torch.manual_seed(0)
    noise = (Augmentation(noise_db=20).waveform(batch, lengths) - batch)[0]
    ratio = 20 * torch.log10(batch[0].square().mean().sqrt() / noise.square().mean().sqrt())
    assert abs(ratio - 20) < 1


def test_masks_cover_whole_bands_and_stretches_with_the_mean():
    torch.manual_seed(0)
    pictures = torch.rand(16, 1, 40, 60)
    masked = Augmentation(freq_masks=1, freq_width=0.5, time_masks=1, time_width=0.5).spectrogram(pictures)
    changed = masked != pictures
    rows, columns = changed.all(dim=3).any(dim=(1, 2)), changed.all(dim=2).any(dim=(1, 2))
    assert rows.any()
    assert columns.any()
    # Only whole rows and whole columns are masked.
    whole = changed.all(dim=3, keepdim=True) | changed.all(dim=2, keepdim=True)
    assert torch.equal(changed, whole.expand_as(changed))
    assert torch.equal(masked, torch.where(changed, pictures.mean((1, 2, 3), keepdim=True), pictures))


def test_every_mask_asked_for_is_there():
    torch.manual_seed(0)
    pictures = torch.rand(200, 1, 40, 600)
    one, three = (Augmentation(time_masks=count).spectrogram(pictures) != pictures for count in (1, 3))
    # The mean width of one is half the greatest; three overlap a little.
    assert 0.04 < one.float().mean() < 0.06
    assert 0.12 < three.float().mean() < 0.15


@pytest.mark.parametrize(
    "values, what",
    [
        ({"time_mask": 2}, "did you mean time_masks"),
        ({"gain_db": "6"}, "not a number"),
        ({"time_masks": 1.5}, "not a whole number"),
        ({"shift": 3}, "between 0 and 1"),
        ({"gain_db": True}, "not a number"),
        ({"gain_db": float("nan")}, "not a number"),
        ({"gain_db": -3}, "at least 0"),
        ({"time_masks": -1}, "at least 0"),
        ({"time_masks": 10**9}, "at most 100"),
        ({"noise_db": -1e30}, "at least -200"),
        ({"shift": None}, "not a number"),
    ],
)
def test_a_wrong_key_or_value_is_said_with_its_config_key(values, what):
    with pytest.raises(UserError, match=what) as caught:
        Augmentation.from_config(values)
    assert f"data_loader.args.augment.{next(iter(values))}" in str(caught.value)


def test_a_long_waveform_is_cut_and_a_short_one_padded_at_any_place():
    waveforms = torch.zeros(400, 2, 12)
    waveforms[:200, 0] = torch.arange(1.0, 13.0)
    waveforms[200:, 0, :3] = torch.tensor([1.0, 2.0, 3.0])
    waveforms[:, 1] = -waveforms[:, 0]
    lengths = torch.tensor([12] * 200 + [3] * 200)
    placed, placed_lengths = place(waveforms, lengths, 5, torch.Generator().manual_seed(0))
    assert placed.shape == (400, 2, 5)
    assert placed_lengths[:200].tolist() == [5] * 200
    # What lies behind a short one does not count.
    assert torch.equal(placed_lengths[200:], placed[200:, 0].argmax(dim=1) + 1)
    cuts = {tuple(row.tolist()) for row in placed[:200, 0]}
    assert cuts == {tuple(range(start, start + 5)) for start in range(1, 9)}
    pads = {tuple(row.tolist()) for row in placed[200:, 0]}
    assert pads == {(1, 2, 3, 0, 0), (0, 1, 2, 3, 0), (0, 0, 1, 2, 3)}
    # The channels of an item go together.
    assert torch.equal(placed[:, 1], -placed[:, 0])


def test_the_noise_of_each_channel_is_its_own_and_as_far_below_it():
    waveforms = torch.randn(1, 2, 20000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[[1.0], [0.1]]])
    noise = Augmentation(noise_db=20).waveform(waveforms, torch.tensor([20000])) - waveforms
    torch.testing.assert_close(noise.std(dim=2), 0.1 * waveforms.std(dim=2), rtol=0.05, atol=0)
    assert abs(float(torch.corrcoef(noise[0])[0, 1])) < 0.05


def marked_item(start, end, frames=192):
    """Features (1, 4, 64, frames) that mark a span; the levels rise with the band."""
    x = torch.zeros(1, 4, 64, frames)
    x[:, :3] = torch.arange(64.0)[:, None] / 64
    x[:, 3, :, start:end] = 1
    return x


def test_of_marked_features_only_the_ends_of_the_mark_move():
    torch.manual_seed(0)
    x = marked_item(60, 140).expand(200, -1, -1, -1)
    jittered = Augmentation(edge_jitter=0.06).marked(x)
    assert torch.equal(jittered[:, :3], x[:, :3])
    marks = jittered[:, 3, 0]
    assert torch.equal(jittered[:, 3], marks[:, None].expand(-1, 64, -1))
    starts, lengths = marks.argmax(1).float(), marks.sum(1)
    # One stretch each, about where it was: 6 % of 80 frames are 4.8.
    assert ((marks[:, 1:] - marks[:, :-1]).abs().sum(1) == 2).all()
    assert abs(float(starts.mean()) - 60) < 1.5
    assert 3.5 < float(starts.std()) < 6.5
    assert 5 < float(lengths.std()) < 9


def test_a_mark_that_was_normalised_keeps_its_two_values():
    torch.manual_seed(0)
    x = (marked_item(60, 140) - 0.3) / 0.2
    mark = Augmentation(edge_jitter=0.06).marked(x)[:, 3]
    assert sorted(mark.unique().tolist()) == sorted(x[:, 3].unique().tolist())


def test_masks_levels_and_rolls_leave_the_mark_alone():
    torch.manual_seed(0)
    x = marked_item(60, 140).expand(50, -1, -1, -1)
    options = {"time_masks": 2, "freq_masks": 2, "level": 0.5, "roll_bands": 3}
    changed = Augmentation(**options).marked(x)
    assert torch.equal(changed[:, 3], x[:, 3])
    assert not torch.equal(changed[:, :3], x[:, :3])


def test_bands_move_by_whole_bands_and_the_level_is_one_number():
    torch.manual_seed(0)
    x = marked_item(60, 140).expand(50, -1, -1, -1)
    rolled = Augmentation(roll_bands=2).marked(x)[:, :3]
    by = ((x[:, :3] - rolled)[:, 0, 32, 0] * 64).round()
    assert set(by.tolist()) == {-2, -1, 0, 1, 2}
    inner = rolled[:, :, 2:62] - x[:, :3, 2:62]
    torch.testing.assert_close(inner, (-by / 64)[:, None, None, None].expand_as(inner))
    raised = Augmentation(level=0.5).marked(x)[:, :3] - x[:, :3]
    assert torch.allclose(raised, raised[:, :1, :1, :1].expand_as(raised), atol=1e-6)
    assert 0.3 < float(raised[:, 0, 0, 0].std()) < 0.7


def test_recordings_move_in_a_circle_together_with_what_is_known_of_their_frames():
    torch.manual_seed(0)
    data = torch.zeros(3, 4, 64, 100, dtype=torch.uint8)
    lengths = [100, 60, 1]
    details = torch.full((3, 100, 2), -1.0)
    for item, frames, length in zip(data, details, lengths, strict=True):
        item[:3, :, :length] = torch.arange(length, dtype=torch.uint8)
        item[3, :, :length] = 255
        frames[:length] = torch.arange(length)[:, None].float()
    batch = Batch(data, torch.zeros(3), torch.arange(3), details=details)
    before = data.clone()
    moved = Augmentation(roll_time=True).moved(batch)
    assert torch.equal(batch.data, before)
    assert torch.equal(moved.data[:, 3], data[:, 3])
    assert torch.equal(moved.details[..., 0] >= 0, details[..., 0] >= 0)
    for item, frames, length in zip(moved.data, moved.details, lengths, strict=True):
        assert item[0, 0, :length].tolist() == frames[:length, 0].tolist()
        start = int(item[0, 0, 0])
        assert item[2, 5, :length].tolist() == [(start + n) % length for n in range(length)]
    assert not torch.equal(moved.data, data)
    assert Augmentation().moved(batch) is batch
