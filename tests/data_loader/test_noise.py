"""The noise level of a recording."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_loader.noise import noise_level, noise_of_rows

RATE = 8000


def tone(hertz, amplitude, seconds=4.0, rate=RATE):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def hiss(amplitude, seconds=4.0, seed=0):
    return np.random.default_rng(seed).normal(0, amplitude, round(seconds * RATE)).astype(np.float32)


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_a_tone_in_the_band_has_its_power(rate):
    assert noise_level(tone(600, 0.1, rate=rate), rate) == pytest.approx(10 * np.log10(0.1**2 / 2), abs=0.2)


def test_twice_as_loud_is_6_db_more():
    assert noise_level(2 * hiss(0.001), RATE) - noise_level(hiss(0.001), RATE) == pytest.approx(6.0, abs=0.11)


def test_what_lies_outside_of_the_band_does_not_count():
    quiet = hiss(0.001)
    for hertz in (40, 3000):
        assert noise_level(quiet + tone(hertz, 0.2), RATE) == pytest.approx(noise_level(quiet, RATE), abs=0.3)


def test_breaths_between_pauses_do_not_count():
    noise = hiss(0.001)
    breaths = hiss(0.05, seed=1) * (np.arange(len(noise)) // RATE % 4 != 3)
    assert noise_level(noise + breaths, RATE) == pytest.approx(noise_level(noise, RATE), abs=1.5)
    assert noise_level(noise + hiss(0.05, seed=1), RATE) > noise_level(noise, RATE) + 30


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 401])
def test_the_shortest_recording_has_a_level(samples):
    assert -120 <= noise_level(np.full(samples, 0.1, dtype=np.float32), RATE) < 0


def test_digital_silence_is_the_floor():
    assert noise_level(np.zeros(RATE, dtype=np.float32), RATE) == -120


def test_each_row_has_the_level_of_its_file(tmp_path):
    for name, amplitude in (("a.wav", 0.01), ("b.wav", 0.1)):
        soundfile.write(tmp_path / name, hiss(amplitude), RATE)
    levels = noise_of_rows(pd.DataFrame({"path": ["b.wav", "a.wav", "b.wav"]}), tmp_path)
    assert levels[0] == levels[2] == pytest.approx(levels[1] + 20, abs=0.2)
