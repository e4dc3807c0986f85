import math

import pytest
import torch
from torch.nn import functional

from data_loader.features.common import choose, resample, resize_frames
from tests.fake_cuda import CUDA, fake_gpu
from utils.errors import UserError


@pytest.mark.parametrize("size", [128, 224])
def test_resizing_a_ragged_batch_equals_interpolate_of_each_item_alone(size):
    counts = torch.tensor([1, 2, 13, 127, 128, 129, 224, 500, 1537, 500])
    frames = torch.randn(len(counts), 1600, 3, generator=torch.Generator().manual_seed(0))
    resized = resize_frames(frames, counts, size)
    for item, count, result in zip(frames, counts, resized, strict=True):
        image = item[:count].T[None, None].double()
        alone = functional.interpolate(image, (3, size), mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(result, alone[0, 0].T.float(), atol=5e-5, rtol=1e-5)


def test_a_gpu_is_not_asked_to_shrink_more_than_it_can(monkeypatch):
    interpolate = functional.interpolate

    def of_cuda(image, size, **kwargs):
        # UpSampleBilinear2d.cu: filters of either axis for a block of 32 x 1 in 48 KB of shared memory.
        taps = [2 * math.ceil(max(old / new, 1)) + 1 for old, new in zip(image.shape[2:], size, strict=True)]
        if image.is_cuda and 4 * (32 * taps[1] + 33 * taps[0]) > 48 * 1024:
            raise RuntimeError("Please reduce the scale factor. Too much shared memory required")
        return interpolate(image, size, **kwargs)

    monkeypatch.setattr(functional, "interpolate", of_cuda)
    frames, counts = torch.randn(3, 1600, 3), torch.tensor([1600, 1400, 20])
    for size in (8, 9):
        with fake_gpu():
            on_gpu = resize_frames(frames.to(CUDA), counts.to(CUDA), size)
            assert on_gpu.device == CUDA
            torch.testing.assert_close(on_gpu.cpu(), resize_frames(frames, counts, size))


def test_resizing_a_batch_of_one_length_equals_the_ragged_way():
    frames = torch.randn(3, 300, 2, generator=torch.Generator().manual_seed(0))
    ragged = resize_frames(frames, torch.tensor([300, 300, 7]), 100)
    torch.testing.assert_close(resize_frames(frames[:2], torch.tensor([300, 300]), 100), ragged[:2])


@pytest.mark.parametrize("rate", [4000, 8000, 22050, 44100])
def test_resampling_keeps_a_tone_and_the_duration(rate):
    seconds = torch.arange(rate) / rate
    tone = torch.sin(2 * torch.pi * 440 * seconds)
    length = round(0.7 * rate)
    batch = torch.stack([tone, tone.masked_fill(seconds >= 0.7, 0.0)])
    resampled, lengths = resample(batch, rate, 16000, torch.tensor([rate, length]))
    assert lengths.tolist() == [16000, 11200]
    assert resampled.shape == (2, 16000)
    assert not resampled[1, 11200:].any()
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    torch.testing.assert_close(resampled[0, 100:-100], expected[100:-100], atol=5e-3, rtol=0)


def test_a_length_that_float32_rounds_down_is_resampled_to_its_last_sample():
    # 160 / 441 of this is 1 / 441 above a whole number, which float32 cannot tell from it.
    n_samples = 441 * 500 + pow(160, -1, 441)
    resampled, lengths = resample(torch.zeros(1, n_samples), 44100, 16000, torch.tensor([n_samples]))
    assert resampled.shape[1] == int(lengths) == -(-n_samples * 160 // 441)


def test_an_unknown_choice_names_the_nearest():
    with pytest.raises(UserError, match=r"frontend: there is no frontend 'kadli' \(did you mean kaldi\?\)"):
        choose("frontend", "kadli", ("mel", "kaldi"))
