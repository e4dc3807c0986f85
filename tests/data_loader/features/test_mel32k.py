import pytest
import torch
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.transforms import Spectrogram

from data_loader.features.mel32k import kaldi_filters, mel32k
from utils.errors import UserError


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.01


def test_filters_are_kaldis():
    expected, _ = get_mel_banks(128, 1024, 32000.0, 0.0, 15000.0, 100.0, -500.0, 1.0)
    assert torch.equal(kaldi_filters()[:-1].T, expected)
    assert not kaldi_filters()[-1].any()


def test_filters_are_triangles_on_the_mel_axis_up_to_15_khz():
    hertz = torch.arange(513) * 32000 / 1024
    mel = 1127.0 * torch.log1p(hertz / 700.0)
    edges = torch.linspace(0.0, 1127.0 * float(torch.tensor(15000 / 700.0).log1p()), 130)
    up = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    torch.testing.assert_close(kaldi_filters(), torch.minimum(up, down).clamp(min=0.0), atol=1e-3, rtol=1e-3)


def test_equals_the_published_recipe():
    waveform = noise(64000)
    emphasised = torch.nn.functional.conv1d(waveform[None, None], torch.tensor([[[-0.97, 1.0]]]))[0, 0]
    spectrogram = Spectrogram(1024, 800, 320, window_fn=lambda size: torch.hann_window(size, periodic=False))
    expected = ((kaldi_filters().T @ spectrogram(emphasised) + 1e-5).log() + 4.5) / 5
    torch.testing.assert_close(mel32k(waveform, 32000, duration=2.0)[0], expected, atol=1e-4, rtol=1e-4)


def test_ten_seconds_are_a_thousand_frames_at_any_rate():
    assert mel32k(noise(2, 4000), 4000).shape == (2, 1, 128, 1000)
    assert mel32k(noise(64000), 32000, duration=5.0).shape == (1, 128, 500)


def test_a_tone_lies_in_the_band_of_its_frequency_whatever_the_rate():
    for rate in (8000, 16000, 44100):
        tone = 0.1 * torch.sin(2 * torch.pi * 1000 * torch.arange(2 * rate) / rate)
        bands = mel32k(tone, rate, duration=2.0)[0, :, 50]
        assert bands.argmax() == kaldi_filters()[32].argmax()  # bin 32 is 1000 Hz


def test_a_short_item_is_repeated_or_padded():
    item = noise(32000)
    repeated, padded = (mel32k(item, 32000, duration=2.0, fit=fit)[0] for fit in ("repeat", "pad"))
    torch.testing.assert_close(repeated[:, 110:190], repeated[:, 10:90], atol=1e-4, rtol=1e-4)
    silence = (torch.tensor(1e-5).log() + 4.5) / 5
    torch.testing.assert_close(padded[:, 110:], silence.expand(128, 90))


@pytest.mark.parametrize(
    "params, subject", [({"fit": "loop"}, "fit"), ({"duration": 0.0}, "duration"), ({"duration": 1e300}, "duration")]
)
def test_a_parameter_out_of_range_is_named(params, subject):
    with pytest.raises(UserError) as raised:
        mel32k(noise(4000), 8000, **params)
    assert raised.value.subject == subject
