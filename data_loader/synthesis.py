"""The sounds of the synthetic set: breath, heart, adventitious sounds and recording faults.

Each sound is one function of a random generator; all work at 8 kHz and return float64 waveforms, ``(samples,)``,
whose levels are relative to the breath noise (inspiration has unit RMS at its loudest), unless they say otherwise.

Durations and pitches follow the definitions of the European Respiratory Society: Sovijärvi et al., "Definition of
terms for applications of respiratory sounds" (CORSA), Eur Respir Rev 10(77), 2000; Pasterkamp et al., "Towards the
standardisation of lung sound nomenclature", Eur Respir J 47, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import fft

RATE = 8000
_RECORDER_CUTOFF = 1150.0


@dataclass(frozen=True)
class Breath:
    """One breath; times in seconds from the start of the recording.

    Attributes:
        inspiration: its start and end.
        expiration: its start and end; the pause until the next breath follows.
        depth: loudness relative to the patient's usual breath.
    """

    inspiration: tuple[float, float]
    expiration: tuple[float, float]
    depth: float


def breathing(rng: Generator, seconds: float, rate_per_minute: float) -> list[Breath]:
    """Breaths that cover a recording; the first and the last may reach beyond its ends.

    Inspiration takes 35 to 45 % of the cycle, expiration nearly as long, and a pause follows. The cycle varies by
    some per cent from breath to breath.
    """
    cycle = 60.0 / rate_per_minute
    start = rng.uniform(-0.6, 0.4) * cycle
    breaths = []
    while start < seconds:
        length = cycle * rng.uniform(0.92, 1.08)
        middle = start + length * rng.uniform(0.35, 0.45)
        expiration = (middle + 0.02 * length, start + length * rng.uniform(0.76, 0.9))
        breaths.append(Breath((start, middle), expiration, float(np.exp(rng.normal(0.0, 0.2)))))
        start += length
    return breaths


def breath_noise(
    rng: Generator, samples: int, breaths: list[Breath], corner: float, slope: float, expiration_level: float
) -> np.ndarray:
    """Breath sounds: noise with the flow's envelope.

    Vesicular breath sounds on the chest wall are noise of about 70 to 600 Hz whose spectrum falls steadily, louder
    and higher in inspiration than in expiration (CORSA, "lung sounds").

    Args:
        corner: Hz, from where the spectrum falls.
        slope: dB an octave, the fall.
        expiration_level: RMS of expiration relative to inspiration.
    """
    inspiration, expiration = np.zeros(samples), np.zeros(samples)
    for breath in breaths:
        place(inspiration, breath.inspiration[0], breath.depth * _hump(breath.inspiration, skew=1.0))
        place(expiration, breath.expiration[0], breath.depth * _hump(breath.expiration, skew=0.6))
    return inspiration * coloured_noise(rng, samples, corner, slope) + (
        expiration_level * expiration * coloured_noise(rng, samples, 0.75 * corner, slope)
    )


def coloured_noise(rng: Generator, samples: int, corner: float, slope: float) -> np.ndarray:
    """Noise of unit RMS, flat from 70 Hz to `corner` Hz, falling by `slope` dB an octave above."""
    size = fft.next_fast_len(samples, real=True)
    frequency = np.maximum(fft.rfftfreq(size, 1 / RATE), 1e-3)
    gain = (1 + (frequency / corner) ** 4) ** (-slope / 24.08) / (1 + (70.0 / frequency) ** 2)
    noise = fft.irfft(fft.rfft(rng.standard_normal(size)) * gain, size)[:samples]
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def heart_beats(rng: Generator, samples: int, beats_per_minute: float) -> np.ndarray:
    """Heart sounds of peak level about 1: S1 near 45 Hz and S2 near 65 Hz, a third of the cycle later, softer."""
    sound = np.zeros(samples)
    time = -rng.uniform(0.0, 1.0)
    while time < samples / RATE:
        cycle = 60.0 / beats_per_minute * rng.uniform(0.95, 1.05)
        place(sound, time, _thump(45.0 * rng.uniform(0.9, 1.1), 0.022))
        place(sound, time + 0.33 * cycle, 0.6 * _thump(65.0 * rng.uniform(0.9, 1.1), 0.015))
        time += cycle
    return sound


def harmonic_tone(rng: Generator, seconds: float, pitch: float, harmonics: tuple[float, ...]) -> np.ndarray:
    """A musical sound of unit RMS whose pitch wanders slowly.

    Args:
        pitch: Hz, of the first harmonic; it glides by up to 8 % and trembles by 1 to 3 % at 2 to 5 Hz.
        harmonics: amplitudes of the first, second, ... harmonic.
    """
    time = np.arange(max(round(seconds * RATE), 8)) / RATE
    glide = np.linspace(0.0, rng.uniform(-0.08, 0.08), len(time))
    tremble = rng.uniform(0.01, 0.03) * np.sin(2 * np.pi * (rng.uniform(2.0, 5.0) * time + rng.random()))
    phase = 2 * np.pi * np.cumsum(pitch * (1 + glide + tremble)) / RATE
    tone = np.zeros(len(time))
    for number, amplitude in enumerate(harmonics, start=1):
        tone += amplitude * np.sin(number * phase + rng.uniform(0.0, 2 * np.pi))
    fade = np.minimum(1.0, np.minimum(time, time[::-1]) / min(0.04, seconds / 4))
    tone *= fade * (1 + 0.3 * np.sin(2 * np.pi * (rng.uniform(1.0, 4.0) * time + rng.random())))
    return tone / np.sqrt(np.mean(tone**2))


def wheeze(rng: Generator, seconds: float, pitch: float) -> np.ndarray:
    """A wheeze: musical, nearly sinusoidal, of 80 ms or more, dominant frequency 100 to 1000 Hz (CORSA)."""
    return harmonic_tone(rng, max(seconds, 0.1), pitch, (1.0, rng.uniform(0.05, 0.35), rng.uniform(0.0, 0.1)))


def rhonchus(rng: Generator, seconds: float, pitch: float) -> np.ndarray:
    """A rhonchus: a low-pitched wheeze, rich in harmonics, dominant frequency below 300 Hz (CORSA, ERS 2016)."""
    return harmonic_tone(rng, max(seconds, 0.1), pitch, (1.0, *rng.uniform(0.2, 0.5, 2), *rng.uniform(0.05, 0.2, 2)))


def stridor(rng: Generator, seconds: float, pitch: float) -> np.ndarray:
    """Stridor: a very loud musical sound of the narrowed larynx or trachea, mostly inspiratory, 500 Hz up (CORSA)."""
    harsh = coloured_noise(rng, max(round(max(seconds, 0.1) * RATE), 8), 600.0, 12.0)
    tone = harmonic_tone(rng, max(seconds, 0.1), pitch, (1.0, rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.3)))
    return tone + 0.15 * harsh * np.hanning(len(tone))


def crackle(two_cycle: float, initial: float) -> np.ndarray:
    """One crackle of peak 1: a sharp deflection, then a swing that widens and dies away.

    The form is that of the crackles simulated by Kiyokawa et al., Chest 119(6), 2001: two cycles of a sine on a
    stretched time axis under a raised cosine that rises faster than it falls.

    Args:
        two_cycle: seconds, duration of the first two cycles (CORSA: fine below 10 ms, typically 5; coarse above
            10 ms, typically 15), which is also the duration of the whole sound.
        initial: seconds, width of the initial deflection (fine about 0.7 ms, coarse about 1.5 ms).
    """
    u = np.arange(max(round(two_cycle * RATE), 8)) / (two_cycle * RATE)
    stretch = np.log(0.25) / np.log(initial / two_cycle)
    burst = np.sin(4 * np.pi * u**stretch) * 0.5 * (1 + np.cos(2 * np.pi * (np.sqrt(u) - 0.5)))
    return burst / np.abs(burst).max()


def fine_crackle(rng: Generator) -> np.ndarray:
    """A fine crackle: two-cycle duration about 5 ms."""
    return crackle(rng.uniform(0.004, 0.0065), rng.uniform(0.0006, 0.0008))


def coarse_crackle(rng: Generator) -> np.ndarray:
    """A coarse crackle: two-cycle duration about 15 ms, so lower in pitch than a fine one."""
    return crackle(rng.uniform(0.012, 0.018), rng.uniform(0.0013, 0.0018))


def rubbing(rng: Generator, samples: int, share: float) -> np.ndarray:
    """Clothes or skin rubbing on the stethoscope: rough noise in strokes that fill `share` of the time."""
    sound = np.zeros(samples)
    covered = 0.0
    while covered < share * samples / RATE:
        stroke = rng.uniform(0.08, 0.5)
        size = round(stroke * RATE)
        noise = coloured_noise(rng, size, rng.uniform(150.0, 600.0), 6.0)
        rough = 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(15.0, 45.0) * np.arange(size) / RATE)
        place(sound, rng.uniform(-stroke, samples / RATE), rng.uniform(0.5, 1.5) * noise * rough * np.hanning(size))
        covered += stroke
    return sound


def taps(rng: Generator, samples: int) -> np.ndarray:
    """One to three knocks against the stethoscope, far louder than breath: they occur in usable recordings too."""
    sound = np.zeros(samples)
    for time in rng.uniform(0.0, samples / RATE, int(rng.integers(1, 4))):
        place(sound, time, rng.uniform(4.0, 15.0) * _thump(rng.uniform(50.0, 180.0), rng.uniform(0.004, 0.015)))
    return sound


def recorder(waveform: np.ndarray) -> np.ndarray:
    """The electronic stethoscope: nothing above about 1.2 kHz, as in SPRSound's recordings."""
    size = fft.next_fast_len(len(waveform), real=True)
    gain = 1 / np.sqrt(1 + (fft.rfftfreq(size, 1 / RATE) / _RECORDER_CUTOFF) ** 24)
    return fft.irfft(fft.rfft(waveform, size) * gain, size)[: len(waveform)]


def place(track: np.ndarray, time: float, sound: np.ndarray) -> None:
    """Add a sound to a track, in place, from `time` seconds on; what reaches beyond the track's ends is cut."""
    start = round(time * RATE)
    first, last = max(start, 0), min(start + len(sound), len(track))
    if first < last:
        track[first:last] += sound[first - start : last - start]


def _hump(phase: tuple[float, float], skew: float) -> np.ndarray:
    """A flow envelope of peak 1; a skew below 1 puts the peak early."""
    u = np.linspace(0.0, 1.0, max(round((phase[1] - phase[0]) * RATE), 2))
    return np.abs(np.sin(np.pi * u**skew)) ** 0.8


def _thump(frequency: float, width: float) -> np.ndarray:
    time = np.arange(round(6 * width * RATE)) / RATE - 3 * width
    return np.cos(2 * np.pi * frequency * time) * np.exp(-0.5 * (time / width) ** 2)
