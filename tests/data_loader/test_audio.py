"""Reading audio files."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from data_loader.audio import check_audio, cut_event, read_audio
from data_loader.excerpt import read_excerpt
from utils.errors import UserError

RATE = 8000


@pytest.fixture
def tone():
    return (0.1 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    "suffix, subtype", [("wav", "PCM_16"), ("wav", "PCM_U8"), ("wav", "DOUBLE"), ("flac", "PCM_16")]
)
def test_wav_and_flac_are_read_as_float(tmp_path, tone, suffix, subtype):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone, RATE, subtype=subtype)
    waveform, rate = read_audio(path)
    assert (waveform.dtype, rate) == (np.float32, RATE)
    np.testing.assert_allclose(waveform, tone, atol=1 / 128)


def test_stereo_becomes_the_mean_of_its_channels_and_the_rate_is_kept(tmp_path, tone):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.column_stack([tone, np.zeros_like(tone)]), 44100, subtype="FLOAT")
    waveform, rate = read_audio(path)
    assert rate == 44100
    np.testing.assert_allclose(waveform, tone / 2, atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_cut_at_any_place_is_an_error_that_names_it(tmp_path, tone, suffix):
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, tone, RATE)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for size in np.linspace(0, len(content) - 2, 23).astype(int):
        path.write_bytes(content[:size])
        with pytest.raises(UserError) as caught:
            read_audio(path)
        assert str(path) in str(caught.value)


def test_an_empty_recording_and_a_non_finite_sample_are_errors(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.float32), RATE)
    with pytest.raises(UserError, match="holds no audio"):
        read_audio(path)
    soundfile.write(path, np.array([0.1, np.nan], np.float32), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="not finite"):
        read_audio(path)


def test_the_digest_changes_with_the_content(tmp_path, tone):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone, RATE)
    first = check_audio(path)
    soundfile.write(path, tone[::-1], RATE)
    assert first.seconds == 1.0
    assert check_audio(path).digest != first.digest


def test_an_event_is_cut_by_its_milliseconds():
    recording = np.arange(RATE, dtype=np.float32)
    np.testing.assert_array_equal(cut_event(recording, RATE, 250, 376), recording[2000:3008])
    assert cut_event(recording, RATE, 0, -1) is recording
    assert len(cut_event(recording, RATE, 999, 1005)) == 8
    assert len(cut_event(recording, RATE, 1000, 1001)) == 1


def test_a_cut_file_with_the_extensible_header_is_an_error(tmp_path, tone):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone, RATE, format="WAVEX")
    assert len(read_audio(path)[0]) == RATE
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UserError, match="cut short"):
        read_audio(path)


def test_a_damaged_flac_is_an_error(tmp_path, tone):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone, RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable audio file"):
        read_audio(path)


def test_the_file_is_named_once(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(UserError) as caught:
        read_audio(path)
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("rate", [1, 99, 8001, 1_000_001, 2**31 - 1])
def test_a_rate_that_no_feature_could_take_is_an_error(tmp_path, tone, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone, rate)
    for read in (lambda: read_audio(path), lambda: read_excerpt(path, 0, 1)):
        with pytest.raises(UserError, match=rf"a\.wav: has the sampling rate {rate} Hz"):
            read()


@pytest.mark.parametrize("rate", [100, 4000, 5512, 10_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_the_rates_of_recorders_are_read(tmp_path, tone, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone, rate)
    assert read_audio(path)[1] == rate


def test_a_small_file_that_claims_gigabytes_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((4096, 8), np.int16), 640_000)
    content = bytearray(path.read_bytes())
    # The 36 bits of STREAMINFO that count the samples (RFC 9639, 8.2).
    content[21] = content[21] & 0xF0
    content[22:26] = (1_500_000_000).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(UserError, match="1500000000 samples in 8 channels"):
        read_audio(path)
