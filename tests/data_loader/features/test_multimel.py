"""Log-mels of three resolutions of a recording, and of an event in its surroundings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.functional import resample
from torchaudio.transforms import MelScale, Spectrogram

from data_loader.extract import extract
from data_loader.features import methods
from data_loader.features.multimel import multimel, multimel_event
from data_loader.fingerprint import with_digests
from data_loader.store import FeatureStore
from data_loader.tables import build_tables
from utils.errors import UserError

MEDIAN = 4 / 14


def noise(samples, seed=0):
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.01


def slow_log_mel(waveform, window):
    """torchaudio's mel spectrogram, divided by the window's energy, minus each band's median."""
    spectrogram = Spectrogram(1024, window, 100, power=2, center=True, pad_mode="constant")
    mels = MelScale(64, 8000, 40.0, 2000.0, 513)(spectrogram(waveform))
    levels = (mels / torch.hann_window(window).square().sum() + 1e-11).log()
    return levels - levels.median(dim=1, keepdim=True).values


@pytest.mark.parametrize("channel, window", enumerate((128, 320, 800)))
def test_each_channel_is_the_log_mel_of_its_window_about_the_recordings_median(channel, window):
    waveform = noise(20000)
    levels = multimel(waveform, 8000)[channel, :, :201] * 14 - 4
    torch.testing.assert_close(levels, slow_log_mel(waveform, window).clamp(-4, 10), atol=2e-3, rtol=1e-3)


def test_a_recording_is_marked_up_to_its_end_and_has_its_median_behind_it():
    features = multimel(noise(20000), 8000)
    assert features[3, :, :200].eq(1).all()
    assert features[3, :, 201:].eq(0).all()
    assert features[:3, :, 201:].eq(MEDIAN).all()


def test_loudness_of_the_recording_does_not_matter():
    torch.testing.assert_close(multimel(noise(20000), 8000), multimel(8 * noise(20000), 8000), atol=1e-3, rtol=0)


def test_an_event_is_seen_in_its_surroundings_and_marked():
    recording = noise(40000)
    start, end = 16000, 24000
    event = multimel_event(recording, 8000, spans=torch.tensor([[start, end]]))
    whole = multimel(recording, 8000)
    # 192 frames about frame 200.
    torch.testing.assert_close(event[:3], whole[:3, :, 104:296])
    assert event[3, 0].nonzero().flatten().tolist() == list(range(160 - 104, 240 - 104))


def test_beyond_the_recordings_ends_is_the_median():
    event = multimel_event(noise(8000), 8000, spans=torch.tensor([[0, 1600]]))
    # Centred on frame 8, so that 88 frames lie before the recording and 23 behind its last one.
    assert event[:3, :, :88].eq(MEDIAN).all()
    assert not event[:3, :, 88:169].eq(MEDIAN).all(dim=(0, 1)).any()
    assert event[:3, :, 169:].eq(MEDIAN).all()
    assert event[3, 0].nonzero().flatten().tolist() == list(range(88, 104))


def test_of_an_event_longer_than_the_canvas_the_middle_is_seen():
    recording = noise(80000)
    event = multimel_event(recording, 8000, spans=torch.tensor([[8000, 72000]]))
    assert event[3].eq(1).all()
    torch.testing.assert_close(event[:3], multimel(recording, 8000)[:3, :, 304:496])


def test_the_duration_is_that_of_the_event_not_stretched():
    spans = torch.tensor([[8000, 8800], [8000, 16800]])
    short, long = multimel_event(noise(24000).expand(2, -1), 8000, spans=spans)
    assert (short[3, 0].sum(), long[3, 0].sum()) == (8, 88)


def test_other_rates_hear_the_same():
    at_8 = noise(24000)
    features = multimel(at_8, 8000)[:3, :, 2:238]
    again = multimel(resample(at_8, 8000, 16000), 16000)[:3, :, 2:238]
    assert float((features - again).abs().median()) < 0.01


def test_the_store_holds_each_event_in_its_own_recording(own_data):
    tables = build_tables(own_data)
    folder, count = extract(own_data, methods["multimel_event"], {"duration": 2.4}, {1: tables.task1}, tables.digests)
    assert count == len(tables.task1)
    store = FeatureStore(folder)
    stored = store.gather(store.locate(with_digests(tables.task1, tables.digests), 1))
    import soundfile

    for row in range(0, count, 7):
        item = tables.task1.iloc[row]
        samples, rate = soundfile.read(own_data / item["path"], dtype="float32")
        span = torch.tensor([[round(item[key] * rate / 1000) for key in ("start_ms", "end_ms")]])
        expected = multimel_event(torch.from_numpy(samples), rate, spans=span)
        assert np.abs(stored[row] / 255.0 - expected.numpy()).max() < 1 / 255


def test_a_canvas_of_no_length_is_refused():
    with pytest.raises(UserError, match=r"duration: is 0\.0"):
        multimel_event(noise(8000), 8000, duration=0.0)
