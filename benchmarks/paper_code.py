"""BASELINES A AND B: features and loading the straightforward way, as the code beside a paper does it.

Nothing here is used by the program. Benchmarks measure against it: A is `preprocess`, one file after the other, one
feature at a time, pictures drawn by a plotting library, a ``.pt`` file an item; B is `PaperDataset`, one `torch.load`
an item under DataLoader's default collate and workers. It is written as one honestly would who thinks of one file at a
time: every step is the usual library's, what can be kept between files (transforms, the network) is kept, and nothing
is slowed down. The features are those of the program's methods of the same name, save that pictures are in colour and
go through a canvas.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

SIZE = 224
Item = tuple[Path, int, int]  # file, start and end in ms; -1 is the end of the file


def load_cut(path: Path, start_ms: int = 0, end_ms: int = -1) -> tuple[np.ndarray, int]:
    """The samples ``(samples,)`` float64 of a file or of an event in it, and the rate."""
    import soundfile

    waveform, rate = soundfile.read(path)
    end = len(waveform) if end_ms < 0 else round(end_ms * rate / 1000)
    return waveform[round(start_ms * rate / 1000) : end], rate


def bandpassed(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Scaled to [0, 1], then a Butterworth band-pass of order 3, 1-3999 Hz."""
    from scipy.signal import butter, sosfilt, sosfilt_zi

    scaled = (waveform - waveform.min()) / (waveform.max() - waveform.min())
    sections = butter(3, [1.0, min(3999.0, rate / 2 - 1)], "bandpass", fs=rate, output="sos")
    return sosfilt(sections, scaled, zi=sosfilt_zi(sections) * scaled[0])[0]


def drawn(draw: str, *args: np.ndarray, log_frequency: bool = False, cmap: str = "magma") -> Tensor:
    """What an Axes method draws of the arguments, saved as a picture and read back: ``(3, 224, 224)`` in [0, 1].

    A figure of the default size, saved with a tight box and no axes, then resized: what one finds in such code.
    """
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    getattr(axes, draw)(*args, cmap=cmap)
    if log_frequency:
        axes.set_yscale("log")
    if draw == "imshow":
        axes.set_aspect("auto")
    axes.axis("off")
    file = io.BytesIO()
    figure.savefig(file, bbox_inches="tight", pad_inches=0)
    plt.close(figure)
    picture = Image.open(file).convert("RGB").resize((SIZE, SIZE))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def stft(waveform: np.ndarray, rate: int) -> Tensor:
    """The decibel STFT on a logarithmic frequency axis, drawn as librosa.display.specshow does: ``(3, 224, 224)``."""
    hop = round(0.010 * rate)
    signal = torch.from_numpy(bandpassed(waveform, rate)).float()
    window = torch.hann_window(2 * hop)
    spectrum = torch.stft(signal, 2 * hop, hop, window=window, pad_mode="constant", return_complex=True).abs().numpy()
    decibels = 20 * np.log10(np.maximum(spectrum, 1e-10) / max(spectrum.max(), 1e-10))
    frequencies = np.linspace(0, rate / 2, len(spectrum))
    times = np.arange(spectrum.shape[1]) * hop / rate
    return drawn("pcolormesh", times, frequencies[1:], np.maximum(decibels, -80)[1:], log_frequency=True)


def wavelet(waveform: np.ndarray, rate: int) -> Tensor:
    """The db8 coefficients of the third approximation, six levels, as a square picture ``(3, 224, 224)``."""
    import pywt

    signal = bandpassed(waveform, rate)
    for _ in range(3):
        signal, _ = pywt.dwt(signal, "db8")
    values = np.concatenate(pywt.wavedec(signal, "db8", level=6))
    values = (values - values.min()) / (values.max() - values.min())
    side = int(np.ceil(np.sqrt(len(values))))
    square = np.pad(values, (0, side * side - len(values))).reshape(side, side)
    return drawn("imshow", square, cmap="gray")


@functools.cache
def _resampler(rate: int) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    return Resample(rate, 16000)


@functools.cache
def _mel() -> torch.nn.Module:
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    return torch.nn.Sequential(MelSpectrogram(16000, n_fft=2048, hop_length=1024, n_mels=128), AmplitudeToDB())


@functools.cache
def network() -> torch.nn.Module:
    """wav2vec 2.0 base with random weights: they cost as much as trained ones."""
    from torchaudio.models import wav2vec2_base

    return wav2vec2_base().eval()


def ast(waveform: np.ndarray, rate: int) -> Tensor:
    """Mel spectrogram in dB at 16 kHz, ``(256, 128)``."""
    mel = _mel()(_resampler(rate)(torch.from_numpy(waveform).float()))
    return functional.interpolate(mel.T[None, None], (256, 128), mode="bilinear", antialias=True)[0, 0]


def _wav2vec_layers(waveform: np.ndarray, rate: int) -> list[Tensor]:
    with torch.inference_mode():
        layers, _ = network().extract_features(_resampler(rate)(torch.from_numpy(waveform).float())[None])
    return layers


def wav2vec(waveform: np.ndarray, rate: int) -> Tensor:
    """The last of the 12 layers as a picture, ``(1, 224, 224)``."""
    frames = _wav2vec_layers(waveform, rate)[11]
    return functional.interpolate(frames.transpose(1, 2)[None], (SIZE, SIZE), mode="bilinear", antialias=True)[0]


def ast_wav2vec(waveform: np.ndarray, rate: int) -> Tensor:
    """Layer 8 (all 12 are computed), ``(768, 128)``."""
    frames = _wav2vec_layers(waveform, rate)[7]
    return functional.interpolate(frames.transpose(1, 2), 128, mode="linear")[0]


METHODS = {"stft": stft, "wavelet": wavelet, "ast": ast, "wav2vec": wav2vec, "ast_wav2vec": ast_wav2vec}


def compute(method: str, path: Path, start_ms: int = 0, end_ms: int = -1) -> Tensor:
    """The feature of one file, or of one event in it (times in ms, an end of -1 is the end of the file).

    Args:
        method: a key of `METHODS`.

    Returns:
        float32: ``(3, 224, 224)`` for stft and wavelet, ``(256, 128)`` for ast, ``(1, 224, 224)`` for wav2vec,
        ``(768, 128)`` for ast_wav2vec.
    """
    return METHODS[method](*load_cut(path, start_ms, end_ms))


def preprocess(items: Iterable[Item], method: str, out_dir: Path) -> list[Path]:
    """Baseline A: compute one item after the other and save each as ``<out_dir>/<stem>_<start>.pt``."""
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for path, start_ms, end_ms in items:
        file = out_dir / f"{path.stem}_{start_ms}.pt"
        torch.save(compute(method, path, start_ms, end_ms), file)
        files.append(file)
    return files


class PaperDataset(Dataset):
    """Baseline B: an item is a file, loaded when it is asked for.

    Use it as ``DataLoader(PaperDataset(files, labels), batch_size=32, shuffle=True, num_workers=2)``.

    Args:
        files: one ``.pt`` file an item, from `preprocess`.
        labels: class index of each.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[int]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The tensor as saved, and its class index."""
        return torch.load(self.files[index], weights_only=True), self.labels[index]
