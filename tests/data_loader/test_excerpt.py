"""Events read straight from their file."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from data_loader import excerpt
from data_loader.audio import cut_event, read_audio
from data_loader.excerpt import read_excerpt
from utils.errors import UserError

EVENTS = [(0, 250), (333, 777), (1999, 2000), (1500, 2000), (1500, 2600), (2500, 2600), (0, -1), (7, 7)]
KINDS = [
    ("a.wav", "PCM_16", 1, 8000),
    ("a.flac", "PCM_16", 1, 44100),
    ("a.wav", "PCM_24", 1, 8000),
    ("a.wav", "FLOAT", 1, 11025),
    ("a.wav", "PCM_16", 2, 8000),
]


def write(path, subtype="PCM_16", channels=1, rate=8000, seconds=2):
    samples = np.random.default_rng(0).uniform(-1, 1, (seconds * rate, channels))
    soundfile.write(path, samples, rate, subtype)
    return path


@pytest.mark.parametrize(("name", "subtype", "channels", "rate"), KINDS)
@pytest.mark.parametrize(("start_ms", "end_ms"), EVENTS)
def test_an_event_is_that_of_the_whole_recording(tmp_path, name, subtype, channels, rate, start_ms, end_ms):
    path = write(tmp_path / name, subtype, channels, rate)
    recording, _ = read_audio(path)
    samples, found_rate = read_excerpt(path, start_ms, end_ms)
    assert found_rate == rate
    assert samples.dtype == np.float32
    assert np.array_equal(samples, cut_event(recording, rate, start_ms, end_ms))


def test_no_more_is_decoded_than_the_event(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(excerpt, "read_audio", None)
    assert len(read_excerpt(path, 500, 1500)[0]) == 8000


@pytest.mark.parametrize("damage", ["cut short", "no audio", "missing"])
def test_what_is_wrong_is_said_as_for_a_whole_recording(tmp_path, damage):
    path = write(tmp_path / "a.wav")
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:20000] if damage == "cut short" else b"hello")
    with pytest.raises(UserError) as expected:
        read_audio(path)
    with pytest.raises(UserError) as found:
        read_excerpt(path, 1000, 2000)
    assert str(found.value) == str(expected.value)
