"""Augmentation of training batches."""

from __future__ import annotations

import pytest
import torch

from data_loader.augment import Augmentation
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
        ({"shift": None}, "not a number"),
    ],
)
def test_a_wrong_key_or_value_is_said_with_its_config_key(values, what):
    with pytest.raises(UserError, match=what) as caught:
        Augmentation.from_config(values)
    assert f"data_loader.args.augment.{next(iter(values))}" in str(caught.value)
