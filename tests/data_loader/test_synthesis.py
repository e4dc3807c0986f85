from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.signal import welch

from data_loader import synthesis
from data_loader.synthesis import RATE


def generator(seed=0):
    return np.random.default_rng(seed)


def peak_frequency(sound):
    frequency, power = welch(sound, RATE, nperseg=min(len(sound), 2048))
    return frequency[power.argmax()]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "sound, pitch, lowest, highest",
    [
        (synthesis.wheeze, 260.0, 230, 290),
        (synthesis.wheeze, 700.0, 630, 770),
        (synthesis.rhonchus, 105.0, 90, 300),
        (synthesis.rhonchus, 200.0, 170, 300),
        (synthesis.stridor, 600.0, 500, 1000),
    ],
)
def test_musical_sounds_peak_at_their_pitch(sound, pitch, lowest, highest, seed):
    assert lowest <= peak_frequency(sound(generator(seed), 0.6, pitch)) <= highest


def test_musical_sounds_are_as_long_as_asked_but_never_shorter_than_a_wheeze():
    assert len(synthesis.wheeze(generator(), 0.6, 400.0)) == 0.6 * RATE
    assert len(synthesis.wheeze(generator(), 0.01, 400.0)) >= 0.08 * RATE


def test_a_wheeze_is_nearly_pure_and_a_rhonchus_rich_in_harmonics():
    def share_of_first(sound, pitch):
        frequency, power = welch(sound, RATE, nperseg=2048)
        return power[np.abs(frequency - pitch) < 0.25 * pitch].sum() / power.sum()

    for seed in range(5):
        assert share_of_first(synthesis.wheeze(generator(seed), 1.0, 400.0), 400.0) > 0.85
        assert share_of_first(synthesis.rhonchus(generator(seed), 1.0, 150.0), 150.0) < 0.95


def two_cycle_duration(sound):
    """Plain measurement on an oversampled crackle: from its start to the end of its fourth half wave, in seconds."""
    time = np.linspace(0, len(sound) - 1, 50 * len(sound))
    fine = np.interp(time, np.arange(len(sound)), sound)
    crossings = np.flatnonzero(np.diff(np.signbit(fine[1:])))
    ends = [*crossings, len(fine)]
    return ends[3] / len(fine) * len(sound) / RATE, ends[0] / len(fine) * len(sound) / RATE


@pytest.mark.parametrize("two_cycle, initial", [(0.005, 0.0007), (0.015, 0.0015)])
def test_a_crackle_has_the_durations_it_is_asked_for(two_cycle, initial):
    measured, width = two_cycle_duration(synthesis.crackle(two_cycle, initial))
    assert measured == pytest.approx(two_cycle, rel=0.1)
    assert width == pytest.approx(initial, rel=0.25)


def test_fine_crackles_are_shorter_and_higher_than_coarse_ones():
    rng = generator()
    fine = [synthesis.fine_crackle(rng) for _ in range(20)]
    coarse = [synthesis.coarse_crackle(rng) for _ in range(20)]
    assert max(map(len, fine)) < 0.010 * RATE < min(map(len, coarse))

    def centroid(sound):
        power = np.abs(np.fft.rfft(sound, 4096)) ** 2
        return (power * np.fft.rfftfreq(4096, 1 / RATE)).sum() / power.sum()

    assert min(map(centroid, fine)) > 1.5 * max(map(centroid, coarse))


@pytest.mark.parametrize("corner, slope", [(200.0, 12.0), (300.0, 20.0)])
def test_coloured_noise_falls_by_its_slope(corner, slope):
    noise = synthesis.coloured_noise(generator(), 400_000, corner, slope)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)
    frequency, power = welch(noise, RATE, nperseg=1024)
    level = 10 * np.log10(np.interp([3 * corner, 6 * corner], frequency, power))
    assert level[0] - level[1] == pytest.approx(slope, abs=1.5)


def test_inspiration_is_louder_than_expiration_and_the_pause_is_silent():
    breath = synthesis.Breath((0.5, 1.5), (1.6, 2.6), 1.0)
    noise = synthesis.breath_noise(generator(), 3 * RATE, [breath], 250.0, 18.0, 0.5)

    def rms(start, end):
        return np.sqrt(np.mean(noise[round(start * RATE) : round(end * RATE)] ** 2))

    assert rms(0.5, 1.5) > 1.5 * rms(1.6, 2.6) > 0.1
    assert rms(0.0, 0.49) == rms(2.61, 3.0) == 0.0


def test_breaths_follow_one_another_at_the_rate():
    breaths = synthesis.breathing(generator(), 60.0, 30.0)
    starts = [breath.inspiration[0] for breath in breaths]
    assert np.mean(np.diff(starts)) == pytest.approx(2.0, rel=0.05)
    for one, following in itertools.pairwise(breaths):
        assert one.inspiration[1] < one.expiration[0] < one.expiration[1] < following.inspiration[0]


def test_heart_sounds_are_low_and_beat_at_the_rate():
    sound = synthesis.heart_beats(generator(), 60 * RATE, 120.0)
    assert 20 < peak_frequency(sound) < 100
    loud = np.flatnonzero(np.abs(sound) > 0.8) / RATE
    beats = 1 + np.count_nonzero(np.diff(loud) > 0.25)
    assert beats == pytest.approx(120, abs=6)


def test_the_recorder_passes_500_hz_and_stops_2000_hz():
    time = np.arange(RATE) / RATE
    for frequency, lowest, highest in ((500, 0.99, 1.01), (2000, 0.0, 0.01)):
        tone = synthesis.recorder(np.sin(2 * np.pi * frequency * time))[1000:-1000]
        assert lowest <= np.abs(tone).max() <= highest


def test_a_sound_placed_across_an_end_is_cut_there():
    for start, expected in ((-2 / RATE, [1, 1, 0, 0]), (2 / RATE, [0, 0, 1, 1]), (9 / RATE, [0] * 4), (-1.0, [0] * 4)):
        track = np.zeros(4)
        synthesis.place(track, start, np.ones(4))
        assert track.tolist() == expected
