import numpy as np
import torch
from scipy.signal import butter, get_window, sosfilt
from torch.nn import functional

from data_loader.features.stft import stft


def plain(waveform, rate=8000):
    """The definition, slowly, in float64, by scipy and torch.nn.functional.interpolate."""
    x = waveform.double().numpy()
    x = (x - x.min()) / (x.max() - x.min())
    x = sosfilt(butter(3, [1, 3999], "bandpass", fs=rate, output="sos"), x - x[0])
    window = get_window("hann", 160, fftbins=True)
    padded = np.pad(x, 80)
    frames = [padded[80 * t : 80 * t + 160] * window for t in range(1 + len(x) // 80)]
    amplitude = np.abs(np.fft.rfft(frames))
    level = (np.maximum(20 * np.log10(amplitude / amplitude.max()), -80) + 80) / 80
    rows = np.geomspace(1, 80, 224)
    level = np.stack([np.interp(rows, np.arange(81), frame) for frame in level])
    image = torch.from_numpy(level).T[None, None]
    return functional.interpolate(image, (224, 224), mode="bilinear", antialias=True, align_corners=False)[0]


def test_equals_the_plain_definition():
    generator = torch.Generator().manual_seed(0)
    for length in (1008, 8000, 40_123):
        waveform = torch.randn(length, generator=generator) * torch.linspace(0.001, 0.1, length)
        torch.testing.assert_close(stft(waveform, 8000).double(), plain(waveform), atol=2e-4, rtol=0)


def test_a_tone_is_the_brightest_row_at_its_frequency_with_low_frequencies_first():
    seconds = torch.arange(16000) / 8000
    for hertz in (100.0, 400.0, 1600.0):
        picture = stft(torch.sin(2 * torch.pi * hertz * seconds), 8000)[0]
        row = 223 * np.log(hertz / 50) / np.log(80)
        assert abs(int(picture[:, 112].argmax()) - row) <= 1


def test_time_runs_along_the_last_axis():
    waveform = torch.zeros(16000)
    waveform[12000:12080] = torch.randn(80, generator=torch.Generator().manual_seed(0))
    column = int(stft(waveform, 8000)[0].mean(0).argmax())
    assert abs(column - 224 * 12040 / 16000) <= 2


def test_an_item_that_ends_loudly_between_two_frames_does_not_depend_on_its_padding():
    # A frame centred behind the end sees these samples best, but it is not one of the item's.
    waveform = torch.randn(8079, generator=torch.Generator().manual_seed(0)) * 0.01
    waveform[-20:] *= 50.0
    beside_a_longer_one = torch.nn.utils.rnn.pad_sequence([waveform, torch.ones(9000)], batch_first=True)
    result = stft(beside_a_longer_one, 8000, torch.tensor([8079, 9000]))[0]
    torch.testing.assert_close(result, stft(waveform, 8000), atol=1e-5, rtol=0)


def test_silence_and_constants_are_at_the_floor():
    assert not stft(torch.zeros(2, 4000), 8000).any()
    assert not stft(torch.full((4000,), -0.3), 8000).any()
