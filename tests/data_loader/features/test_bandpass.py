import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt, sosfilt_zi

from data_loader.features.bandpass import normalised_bandpass


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.001, 0.126, 3.0])
def test_equals_sosfilt_of_the_normalised_item_from_its_steady_state(rate, seconds):
    generator = torch.Generator().manual_seed(0)
    length = round(seconds * rate)
    waveform = torch.randn(length, generator=generator).cumsum(0) * 0.01 + 0.3
    padded = torch.nn.functional.pad(waveform, (0, 555))
    result = normalised_bandpass(padded[None], rate, torch.tensor([length]))[0]

    x = waveform.double().numpy()
    x = (x - x.min()) / (x.max() - x.min())
    sos = butter(3, [1, min(3999, rate / 2 - 1)], "bandpass", fs=rate, output="sos")
    expected, _ = sosfilt(sos, x, zi=sosfilt_zi(sos) * x[0])
    np.testing.assert_allclose(result[:length], expected, atol=5e-6)
    assert not result[length:].any()


def test_neither_gain_nor_offset_of_the_recording_matters():
    waveform = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([4000])
    plain = normalised_bandpass(waveform, 8000, lengths)
    torch.testing.assert_close(normalised_bandpass(waveform * 0.01 + 0.5, 8000, lengths), plain, atol=1e-4, rtol=0)


def test_a_constant_gives_zeros():
    assert not normalised_bandpass(torch.full((1, 1000), 0.4), 8000, torch.tensor([1000])).any()
