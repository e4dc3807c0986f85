import pytest
import torch
from torch.nn import functional
from torchaudio.compliance.kaldi import fbank
from torchaudio.transforms import MelSpectrogram

from data_loader.features.ast import ast, kaldi_frames, mel_frames
from utils.errors import UserError


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.01


@pytest.mark.parametrize("length", [1, 399, 400, 559, 560, 20_001])
def test_kaldi_frames_are_those_of_torchaudio(length):
    waveforms = functional.pad(noise(2, length) + 0.05, (0, 300))
    lengths = torch.tensor([length, length])
    frames, counts = kaldi_frames(waveforms, lengths)
    centred = waveforms[1, :length] - waveforms[1, :length].mean()
    expected = fbank(
        functional.pad(centred, (0, max(0, 400 - length)))[None],
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    assert int(counts[1]) == len(expected)
    torch.testing.assert_close(frames[1, : len(expected)], expected, atol=1e-3, rtol=1e-4)


def test_mel_frames_are_those_of_torchaudio():
    waveforms = noise(2, 20_000)
    frames, counts = mel_frames(waveforms, torch.tensor([20_000, 20_000]))
    power = MelSpectrogram(16000, n_fft=2048, hop_length=1024, n_mels=128, pad_mode="constant", power=2)(waveforms)
    assert counts.tolist() == [power.shape[2]] * 2
    torch.testing.assert_close(frames.transpose(1, 2), 10 * power.clamp(min=1e-10).log10(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("frontend", ["mel", "kaldi"])
def test_a_tone_is_the_loudest_band_at_its_frequency(frontend):
    seconds = torch.arange(16000) / 8000
    bands = [
        int(ast(torch.sin(2 * torch.pi * f * seconds), 8000, frontend=frontend)[128].argmax()) for f in (200, 2000)
    ]
    mels = [1127 * torch.log(torch.tensor(1 + f / 700)) for f in (200, 2000)]
    top = 1127 * torch.log(torch.tensor(1 + 8000 / 700))
    for band, mel in zip(bands, mels, strict=True):
        assert abs(band - float(mel / top * 129 - 1)) <= 2


def test_the_floor_leaves_a_quiet_lung_sound_whole():
    quiet = ast(noise(16000) * 0.1, 8000)
    # Up to 4 kHz, the Nyquist frequency of the recording, nothing is cut off.
    assert quiet[:, :95].min() > -90.0


def test_silence_is_at_the_floor():
    assert torch.equal(ast(torch.zeros(8000), 8000), torch.full((256, 128), -100.0))


def test_an_unknown_frontend_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean kaldi"):
        ast(noise(8000), 8000, frontend="kald")
