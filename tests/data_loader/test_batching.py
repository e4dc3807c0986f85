from __future__ import annotations

import numpy as np
import pytest
import torch

from data_loader.batching import collate_resp, similar_batches, similar_rows, to_rate
from utils.errors import UserError

LENGTHS = np.random.default_rng(0).integers(1, 1000, 60).tolist()


@pytest.mark.parametrize(("most_rows", "most_samples"), [(8, 1e9), (100, 3000), (1, 1e9), (5, 10)])
def test_every_row_comes_once_in_parts_of_similar_length_within_the_limits(most_rows, most_samples):
    parts = list(similar_rows(LENGTHS, most_rows, most_samples))
    assert sorted(row for part in parts for row in part) == list(range(len(LENGTHS)))
    longest = 0
    for part in parts:
        lengths = [LENGTHS[row] for row in part]
        assert min(lengths) >= longest
        longest = max(lengths)
        assert len(part) <= most_rows
        assert len(part) * longest <= most_samples or len(part) == 1


def test_a_part_takes_what_it_can():
    assert list(similar_rows([10, 10, 10, 10, 10], 2, 1e9)) == [[0, 1], [2, 3], [4]]
    assert list(similar_rows([10, 10, 10, 10, 10], 9, 30)) == [[0, 1, 2], [3, 4]]


def test_batches_hold_the_waveforms_padded_with_zeros_and_one_rate():
    rng = np.random.default_rng(1)
    waveforms = [
        (rng.normal(size=length).astype(np.float32), rate) for length, rate in zip(LENGTHS, [8, 9] * 30, strict=True)
    ]
    seen = []
    for rows, batch, lengths, rate in similar_batches(waveforms, 7):
        for row, item, length in zip(rows, batch, lengths.tolist(), strict=True):
            samples, its_rate = waveforms[row]
            assert its_rate == rate
            assert torch.equal(item[:length], torch.from_numpy(samples))
            assert not item[length:].any()
        seen += rows
    assert sorted(seen) == list(range(60))


def test_details_of_the_items_go_with_the_batch():
    fine = collate_resp([(torch.ones(2, 3), 0, 7, 4), (torch.ones(2, 3), 1, 8, np.int64(5))])
    assert (fine.details.tolist(), fine.details.dtype, fine.lengths) == ([4, 5], torch.int64, None)
    frames = [torch.ones(3, 2), torch.zeros(2, 2)]
    heard = collate_resp([(torch.ones(30), 0, 7, frames[0]), (torch.ones(20), 1, 8, frames[1])])
    assert (heard.details.shape, heard.details.dtype) == ((2, 3, 2), torch.float32)
    # Nothing is known of the frames behind the shorter one.
    assert torch.equal(heard.details, torch.stack([frames[0], torch.cat([frames[1], -torch.ones(1, 2)])]))
    assert collate_resp([(torch.ones(30), 0, 7), (torch.ones(20), 1, 8)]).details is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_features_of_one_axis_are_not_taken_for_waveforms(dtype):
    batch = collate_resp([(torch.ones(5, dtype=dtype), 0, 7), (torch.zeros(5, dtype=dtype), 1, 8)])
    assert (batch.data.shape, batch.data.dtype, batch.lengths) == ((2, 5), dtype, None)
    waveforms = collate_resp([(torch.ones(5), 0, 7), (torch.zeros(3), 1, 8)])
    assert waveforms.lengths.tolist() == [5, 3]


@pytest.mark.parametrize(("rate", "new_rate"), [(8000, 44101), (7999, 1_000_000), (999_999, 999_998)])
def test_rates_with_too_little_in_common_are_refused_before_memory_is_taken(rate, new_rate):
    with pytest.raises(UserError, match=rf"data_loader.args.rate: is {new_rate}, .* {rate} Hz"):
        to_rate(np.zeros(8, np.float32), rate, new_rate, None)
    assert to_rate(np.zeros(8, np.float32), rate, rate, None).shape == (8,)


@pytest.mark.parametrize(("rate", "new_rate"), [(44100, 8000), (8000, 44100), (192000, 11025), (999, 16000)])
def test_usual_rates_are_brought_to_each_other(rate, new_rate):
    assert len(to_rate(np.zeros(rate, np.float32), rate, new_rate, None)) == new_rate
