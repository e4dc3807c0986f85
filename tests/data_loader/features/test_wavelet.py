import numpy as np
import pytest
import pywt
import torch

from data_loader.features.wavelet import coefficients, wavelet


def test_coefficients_are_those_of_wavedec_on_the_third_approximation():
    signal = np.random.default_rng(0).standard_normal(60_000)
    third = pywt.downcoef("a", signal, "db8", level=3)
    np.testing.assert_allclose(coefficients(signal), np.concatenate(pywt.wavedec(third, "db8", level=6)), atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [1, 2, 1008])
def test_a_short_event_gives_a_picture_and_no_warning(length):
    picture = wavelet(torch.randn(length, generator=torch.Generator().manual_seed(0)), 8000)
    assert picture.shape == (3, 224, 224)
    assert torch.isfinite(picture).all()


def test_the_coefficients_fill_the_smallest_square_row_by_row():
    waveform = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    n_coefficients = len(coefficients(waveform.numpy()))
    side = int(np.ceil(np.sqrt(n_coefficients)))
    picture = wavelet(waveform, 8000)[0]
    # The unused end of the square: rows below the last one in use, and the rest of that one, are zero.
    assert side * side > n_coefficients > side * (side - 1) - side
    assert picture[-1, -1] == 0.0
    assert picture.max() > 0.9
    assert picture[: 224 * (side - 2) // side].min() < picture.mean()


def test_the_three_channels_are_one():
    picture = wavelet(torch.randn(4000, generator=torch.Generator().manual_seed(0)), 8000)
    assert torch.equal(picture[0], picture[1])
    assert torch.equal(picture[0], picture[2])


def test_a_constant_gives_zeros():
    assert not wavelet(torch.full((4000,), 0.2), 8000).any()
