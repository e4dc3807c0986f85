"""Damaged WAV and FLAC files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import strategies as st

from data_loader.audio import check_audio, cut_event, read_audio
from data_loader.batching import to_rate
from data_loader.excerpt import read_excerpt
from data_loader.features import methods
from tests.fuzz.harness import answer, damaged, fuzz
from utils.errors import UserError

RATE = 8000


def audio(path, **options):
    tone = 0.1 * np.sin(np.arange(1200) / 3)
    soundfile.write(path, np.column_stack([tone, tone]) if options.pop("stereo", False) else tone, RATE, **options)
    return path.read_bytes()


def check(path, content):
    path.write_bytes(content)
    result = answer(lambda: (read_audio(path), check_audio(path)), path)
    if isinstance(result, UserError):
        return True
    (waveform, rate), info = result
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) == info.frames > 0
    assert np.isfinite(waveform).all()
    excerpt = answer(lambda: read_excerpt(path, 10, 60), path)
    np.testing.assert_array_equal(excerpt[0], cut_event(waveform, rate, 10, 60))
    # Whatever its rate, it has to fit into every method.
    if len(waveform) < 5000:
        assert answer(lambda: to_rate(waveform, rate, 16000, 2)).isfinite().all()
        assert answer(lambda: methods["stft"](torch.from_numpy(waveform), rate)).isfinite().all()
    return False


@pytest.mark.parametrize(
    ("suffix", "options", "examples"),
    [
        ("wav", {"subtype": "PCM_16"}, 250),
        ("wav", {"subtype": "PCM_24", "stereo": True}, 60),
        ("wav", {"subtype": "FLOAT"}, 60),
        ("wav", {"format": "WAVEX", "subtype": "PCM_16"}, 60),
        ("flac", {"subtype": "PCM_16"}, 170),
    ],
)
def test_damaged_audio_is_read_or_refused(tmp_path, suffix, options, examples):
    path = tmp_path / f"a.{suffix}"
    whole = audio(path, **options)
    fuzz(suffix, examples, damaged(whole, header=80 if suffix == "wav" else 120), lambda data: check(path, data))


def test_a_wav_header_may_say_anything(tmp_path):
    path = tmp_path / "a.wav"
    whole = audio(path, subtype="PCM_16")

    def number(bits):
        edges = [0, 1, 2, 3, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1]
        return st.one_of(st.sampled_from(edges), st.integers(0, 2**bits - 1))

    fields = {4: "<I", 16: "<I", 20: "<H", 22: "<H", 24: "<I", 28: "<I", 32: "<H", 34: "<H", 40: "<I"}
    one = st.sampled_from(sorted(fields)).flatmap(
        lambda place: st.tuples(st.just(place), number(8 * struct.calcsize(fields[place])))
    )

    def written(changes):
        data = bytearray(whole)
        for place, value in changes:
            struct.pack_into(fields[place], data, place, value)
        return check(path, bytes(data))

    fuzz("wav", 200, st.lists(one, min_size=1, max_size=3), written)
