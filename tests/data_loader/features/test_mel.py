import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from data_loader.features.common import mel_filters
from data_loader.features.mel import fft_size, fit_duration, mel
from utils.errors import UserError


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.01


def test_equals_torchaudio_with_the_same_settings():
    waveform = noise(16000)
    result = mel(waveform, 8000, n_mels=32, f_min=50.0, f_max=3000.0, duration=2.0)
    n_fft = fft_size(8000, 200, 32, 50.0, 3000.0)
    oracle = MelSpectrogram(
        8000, n_fft=n_fft, win_length=200, hop_length=80, n_mels=32, f_min=50.0, f_max=3000.0, pad_mode="constant"
    )
    expected = 10 * oracle(waveform).clamp(min=1e-10).log10()
    torch.testing.assert_close(result[0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
@pytest.mark.parametrize("n_mels", [16, 64, 128])
def test_no_band_is_empty(rate, n_mels):
    n_fft = fft_size(rate, round(0.025 * rate), n_mels, 0.0, rate / 2)
    assert (mel_filters(rate, n_fft, n_mels, 0.0, rate / 2).amax(0) > 0).all()


def test_short_items_are_repeated_or_padded_and_long_ones_cropped():
    batch = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    lengths = torch.tensor([3, 6])
    assert fit_duration(batch, lengths, 5, "repeat").tolist() == [[1, 2, 3, 1, 2], [1, 2, 3, 4, 5]]
    assert fit_duration(batch, lengths, 5, "pad").tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]]


def test_the_parameters_set_the_shape():
    result = mel(noise(4000), 4000, n_mels=40, hop_ms=20.0, duration=3.0)
    assert result.shape == (1, 40, 151)


@pytest.mark.parametrize(
    "params, subject",
    [
        ({"fit": "loop"}, "fit"),
        ({"n_mels": 0}, "n_mels"),
        ({"hop_ms": 0.0}, "hop_ms"),
        ({"duration": 0.0}, "duration"),
        ({"f_max": 4001.0}, "f_min, f_max"),
        ({"n_mels": 10**9}, "n_mels"),
        ({"duration": 1e300}, "duration"),
        ({"hop_ms": 1e300}, "hop_ms"),
        ({"f_min": 1000.0, "f_max": 1000.0001}, "duration, hop_ms, n_mels, f_min, f_max"),
        ({"f_min": 500.0, "f_max": 400.0}, "f_min, f_max"),
    ],
)
def test_a_parameter_out_of_range_is_named(params, subject):
    with pytest.raises(UserError) as raised:
        mel(noise(4000), 8000, **params)
    assert raised.value.subject == subject
