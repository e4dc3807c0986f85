"""Each group of the summary against a slow one of its own, frame by frame and bin by bin."""

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.stats import skew

from data_loader.features import methods
from data_loader.features.summary import frame_features, frame_statistics, summary
from utils.errors import UserError

RATE = 8000
WINDOW, HOP = 256, 64
N_MFCC = 13
COLUMNS = {
    "mfcc": slice(0, 13),
    "centroid": slice(13, 14),
    "bandwidth": slice(14, 15),
    "roll-off": slice(15, 16),
    "zero crossings": slice(16, 17),
    "energy": slice(17, 18),
    "chroma": slice(18, 30),
}


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise under a rising tone, quiet as lung sounds are."""
    time = np.arange(samples) / RATE
    noise = np.random.default_rng(seed).normal(size=samples)
    return 0.01 * noise + 0.03 * np.sin(2 * np.pi * (200 + 300 * time) * time)


def spectra(signal: np.ndarray) -> np.ndarray:
    """Power ``(frames, bins)`` of frames centred on every 64th sample, zeros beyond the ends."""
    padded = np.concatenate([np.zeros(WINDOW // 2), signal, np.zeros(WINDOW)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = [padded[HOP * t : HOP * t + WINDOW] * window for t in range(1 + len(signal) // HOP)]
    return np.abs(np.fft.rfft(frames)) ** 2


def slow_mfcc(signal):
    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    edges = 700 * (10 ** (np.linspace(0, mel(RATE / 2), 42) / 2595) - 1)
    power = spectra(signal)
    bands = np.zeros((len(power), 40))
    for band, (low, peak, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for number, hertz in enumerate(bins):
            weight = max(0.0, min((hertz - low) / (peak - low), (high - hertz) / (high - peak)))
            bands[:, band] += weight * power[:, number]
    return dct(10 * np.log10(np.maximum(bands, 1e-10)), norm="ortho")[:, :N_MFCC]


def slow_shape(signal):
    """Centroid, bandwidth and roll-off in kHz."""
    rows = []
    khz = np.arange(WINDOW // 2 + 1) * RATE / WINDOW / 1000
    for magnitude in np.sqrt(spectra(signal)):
        centroid = (khz * magnitude).sum() / magnitude.sum()
        bandwidth = np.sqrt(((khz - centroid) ** 2 * magnitude).sum() / magnitude.sum())
        wanted = 0.85 * magnitude.sum()
        number = next(n for n in range(len(khz)) if magnitude[: n + 1].sum() >= wanted)
        position = number - 1 + (wanted - magnitude[:number].sum()) / magnitude[number]
        rows.append([centroid, bandwidth, position * RATE / WINDOW / 1000])
    return np.array(rows)


def slow_crossings(signal):
    rows = []
    for centre in range(0, len(signal) + 1, HOP):
        frame = signal[max(0, centre - WINDOW // 2) : centre + WINDOW // 2] >= 0
        rows.append([np.mean(frame[1:] != frame[:-1])])
    return np.array(rows)


def slow_energy(signal):
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    padded = np.concatenate([np.zeros(WINDOW // 2), signal, np.zeros(WINDOW)])
    rows = [
        np.sum((padded[HOP * t : HOP * t + WINDOW] * window) ** 2) / np.sum(window**2)
        for t in range(1 + len(signal) // HOP)
    ]
    return 10 * np.log10(np.maximum(rows, 1e-10))[:, None]


def slow_chroma(signal):
    rows = []
    for power in spectra(signal):
        classes = np.zeros(12)
        for number, value in enumerate(power[1:], start=1):
            semitone = 69 + 12 * np.log2(number * RATE / WINDOW / 440)  # as in MIDI: 69 is the A, 60 the C
            below = int(np.floor(semitone))
            classes[below % 12] += value * (1 - (semitone - below))
            classes[(below + 1) % 12] += value * (semitone - below)
        rows.append(classes / classes.sum())
    return np.array(rows)


def slow(name, signal):
    shape = {"centroid": 0, "bandwidth": 1, "roll-off": 2}
    if name in shape:
        return slow_shape(signal)[:, shape[name], None]
    functions = {
        "mfcc": slow_mfcc, "zero crossings": slow_crossings, "energy": slow_energy, "chroma": slow_chroma
    }  # fmt: skip
    return functions[name](signal)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_group_equals_the_slow_one(name):
    # One ends on a hop; the shorter one is padded with its batch mate's rubbish.
    signals = [sound(4096), sound(1500, seed=1)]
    batch = torch.full((2, 4096), 0.5)
    for row, signal in zip(batch, signals, strict=True):
        row[: len(signal)] = torch.from_numpy(signal)
    lengths = torch.tensor([4096, 1500])
    batch[1, 1500:] = 0.0
    values, counts = frame_features(batch, RATE, lengths, N_MFCC)
    assert counts.tolist() == [65, 24]
    for row, count, signal in zip(values, counts.tolist(), signals, strict=True):
        np.testing.assert_allclose(row[:count, COLUMNS[name]], slow(name, signal), rtol=1e-3, atol=2e-4)


def test_the_statistics_are_those_of_the_valid_frames_alone():
    values = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0)).exp()
    counts = torch.tensor([50, 7, 1])
    found = frame_statistics(values, counts).double().numpy()
    for item, row, count in zip(found, values.double().numpy(), counts.tolist(), strict=True):
        frames = row[:count]
        expected = [frames.mean(0), frames.std(0), np.nan_to_num(skew(frames)) if count > 1 else np.zeros(4)]
        expected += [np.quantile(frames, share, axis=0) for share in (0.1, 0.5, 0.9)]
        np.testing.assert_allclose(item, expected, rtol=1e-4, atol=1e-4)


def test_values_that_hardly_vary_have_no_skew():
    flat = torch.full((1, 40, 1), 3.0)
    flat[0, 0] += 1e-6
    assert frame_statistics(flat, torch.tensor([40]))[0, 2].abs() < 1e-3


def test_a_tone_is_found_where_it_is():
    tone = torch.from_numpy(0.1 * np.sin(2 * np.pi * 1760 * np.arange(8000) / RATE)).float()  # an A
    median = summary(tone, RATE).view(6, 30)[4]
    assert median[COLUMNS["centroid"]].item() == pytest.approx(1.76, abs=0.03)
    assert median[COLUMNS["zero crossings"]].item() == pytest.approx(2 * 1760 / RATE, abs=0.01)
    assert median[COLUMNS["energy"]].item() == pytest.approx(10 * np.log10(0.1**2 / 2), abs=0.1)
    assert int(median[COLUMNS["chroma"]].argmax()) == 9


@pytest.mark.parametrize("rate", [100, 1000, 44100])
def test_silence_and_the_shortest_sounds_are_finite_at_odd_rates(rate):
    items = torch.zeros(3, 300)
    items[1, :1] = 1.0
    assert summary(items, rate, torch.tensor([300, 1, 2])).isfinite().all()


def test_the_number_of_coefficients_sets_the_shape_and_is_checked():
    assert methods["summary"](torch.zeros(800), RATE, n_mfcc=20).shape == (6 * 37,)
    with pytest.raises(UserError) as raised:
        summary(torch.zeros(800), RATE, n_mfcc=41)
    assert raised.value.subject == "n_mfcc"


def test_half_precision_as_stored_is_far_finer_than_what_tells_sounds_apart():
    from data_loader.encoding import decode, encode

    sounds = [sound(2000 + 300 * seed, seed) * (1 + seed) / 10 for seed in range(20)]
    features = torch.stack([summary(torch.from_numpy(signal).float(), RATE) for signal in sounds])
    stored = decode(torch.from_numpy(encode(features, False, 1)))
    assert ((stored - features).abs().amax(0) < 0.1 * features.std(0)).all()
