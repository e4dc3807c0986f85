"""How loud the noise of a recording is, measured from its audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_loader.audio import read_audio

FRAME_SECONDS = 0.05
# Hz. Below is the heart; above, SPRSound's recordings hold nothing but the steps of 16 bits.
BAND = (100.0, 2000.0)
# Of the frames: it lies in the pauses between breaths.
QUANTILE = 0.1
# Under the steps of 16 bits: digital silence.
_FLOOR = 1e-12


def noise_level(samples: np.ndarray, rate: int) -> float:
    """The level between the breaths: the noise of the room, the skin and the microphone.

    The 10 % quantile, over frames of 50 ms one after another (Hann window), of the power from 100 to 2000 Hz, in dB
    of full scale. In a tenth of a recording nobody breathes, moves or speaks; only there the noise is alone.

    Args:
        samples: ``(samples,)`` in [-1, 1]; shorter than a frame, they are padded with zeros.
        rate: samples a second.

    Returns:
        Rounded to 0.1 dB, so that no order hangs on the last bit of a sum; -120 for digital silence.
    """
    size = max(round(FRAME_SECONDS * rate), 2)
    samples = np.pad(samples, (0, max(size - len(samples), 0)))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    window = np.hanning(size).astype(np.float32)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    inside = (frequencies >= BAND[0]) & (frequencies <= BAND[1])
    # Parseval's theorem, both halves of the spectrum, and of the window its own power.
    spectrum = np.fft.rfft(frames * window, axis=1)[:, inside]
    power = 2 * (np.abs(spectrum) ** 2).sum(axis=1) / (size * (window**2).sum())
    return round(10 * float(np.log10(max(np.quantile(power, QUANTILE), _FLOOR))), 1)


def noise_of_rows(table: pd.DataFrame, data_dir: Path) -> np.ndarray:
    """The noise level of each row's recording; each file is read once (a few seconds for SPRSound's 1,949).

    Args:
        table: with the column `path`, of files in `data_dir`.

    Returns:
        ``(rows,)`` float64, dB.

    Raises:
        UserError: a file cannot be read.
    """
    levels = {path: noise_level(*read_audio(data_dir / path)) for path in table["path"].unique()}
    return table["path"].map(levels).to_numpy(dtype=np.float64)
