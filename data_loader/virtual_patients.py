"""The patients of the synthetic set, and one recording of theirs with its annotated events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from data_loader import synthesis
from data_loader.classes import NORMAL, POOR_QUALITY
from data_loader.synthesis import RATE, Breath

CONTINUOUS = {"Rhonchi", "Wheeze", "Stridor", "Wheeze+Crackle"}
DISCONTINUOUS = {"Coarse Crackle", "Fine Crackle", "Wheeze+Crackle"}

# What a patient's recordings hold, one after another: the adventitious types of each, NORMAL, or POOR_QUALITY. The
# diseases are those that bring these sounds; the shares of the labels lean on SPRSound's, evened out.
_N, _Q = (NORMAL,), (POOR_QUALITY,)
_W, _R, _S, _C, _F, _WC = "Wheeze", "Rhonchi", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze+Crackle"
PLANS: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("bronchiolitis", ((_WC,), (_F,), _N, (_W, _F), _Q, _N, (_WC,), (_W,))),
    ("healthy", (_N, _N, _Q, _N, _N, _N, _N, _N)),
    ("pneumonia", ((_F,), _N, (_F,), _N, _Q, (_F, _C), _N, (_WC,))),
    ("asthma", ((_W,), _N, (_W,), (_R,), _N, _Q, (_W,), _N)),
    ("bronchitis", ((_C,), (_R,), _N, (_R, _C), _N, _Q, (_C,), _N)),
    ("croup", ((_S,), _N, (_W,), _N, (_S,), _Q, _N, (_S,))),
    ("laryngomalacia", (_N, (_S,), (_C,), _N, _Q, _N, (_S, _C), _N)),
    ("pneumonia", (_N, (_F,), _N, (_F,), _Q, _N, (_F,), (_F,))),
)
LOCATIONS = ("p1", "p2", "p3", "p4")
# The heart lies to the left and to the front: louder at p1 and p2, most of all at the left side.
_HEART_AT = {"p1": 0.8, "p2": 1.3, "p3": 0.4, "p4": 0.5}
_FAULTS = ("clipping", "rubbing", "silence")


@dataclass(frozen=True)
class Patient:
    """A patient's body and lungs: what all recordings of theirs have in common.

    Attributes:
        patient_id: eight digits, from 90000001 on; no patient of SPRSound has such a number.
        age: years.
        gender: 0 male, 1 female.
        plan: what the recordings hold, see `PLANS`.
        breath_rate, heart_rate: a minute, the medians of the age (Fleming et al., Lancet 377, 2011), varied.
        corner, slope: Hz and dB an octave, the spectrum of the breath sounds.
        expiration_level, heart_level, floor_level: relative to the breath sounds of inspiration.
        gain: RMS of inspiration in the recording, full scale 1.
        pitch: factor on the pitches of musical sounds; a wide airway sounds lower.
    """

    patient_id: str
    age: float
    gender: int
    plan: tuple[tuple[str, ...], ...]
    breath_rate: float
    heart_rate: float
    corner: float
    slope: float
    expiration_level: float
    heart_level: float
    floor_level: float
    gain: float
    pitch: float


def draw_patient(rng: Generator, number: int, plan: int) -> Patient:
    """A patient with the plan of that index (modulo the plans there are)."""
    name, recordings = PLANS[plan % len(PLANS)]
    age = round(float(np.clip(np.exp(rng.normal(np.log(4.5), 0.8)), 0.2, 16.2)), 1)
    breath_rate = np.interp(age, (0.0, 0.5, 1, 2, 4, 8, 12, 17), (44, 40, 34, 28, 24, 20.5, 18.5, 16)) + 5
    heart_rate = np.interp(age, (0.0, 0.1, 1, 2, 4, 8, 12, 17), (127, 145, 124, 113, 104, 92, 84, 74))
    return Patient(
        patient_id=str(90000001 + number),
        age=age,
        gender=int(rng.integers(2)),
        plan=recordings,
        breath_rate=float(breath_rate * rng.uniform(0.85, 1.15) * (1.0 if name == "healthy" else 1.15)),
        heart_rate=float(heart_rate * rng.uniform(0.9, 1.1)),
        corner=rng.uniform(180.0, 340.0),
        slope=rng.uniform(16.0, 26.0),
        expiration_level=rng.uniform(0.3, 0.8),
        heart_level=float(np.exp(rng.normal(np.log(1.5), 0.5))),
        floor_level=float(np.exp(rng.normal(np.log(0.05), 0.5))),
        gain=float(np.exp(rng.normal(np.log(0.008), 0.4))),
        pitch=float(np.interp(age, (0.2, 16.2), (1.25, 0.85)) * rng.uniform(0.85, 1.15)),
    )


def record_label(types: set[str]) -> str:
    """The record label that follows from the types of a recording's events, as in SPRSound.

    >>> record_label({"Normal", "Wheeze"}), record_label({"Wheeze+Crackle"}), record_label(set())
    ('CAS', 'CAS & DAS', 'Poor Quality')
    """
    if not types:
        return POOR_QUALITY
    continuous, discontinuous = bool(types & CONTINUOUS), bool(types & DISCONTINUOUS)
    if continuous:
        return "CAS & DAS" if discontinuous else "CAS"
    return "DAS" if discontinuous else NORMAL


def draw_recording(
    rng: Generator, patient: Patient, types: tuple[str, ...], location: str
) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """One recording.

    Args:
        types: what it holds, an item of `Patient.plan`.
        location: p1 to p4.

    Returns:
        The samples, ``(samples,)`` int16 at 8 kHz, 7 to 11 s; and the events (start ms, end ms, type) in order,
        none for Poor Quality.
    """
    cycle = 60.0 / patient.breath_rate
    # Two whole breaths at the least, whatever the phase it starts in: each of two types has one.
    seconds = max(rng.uniform(7.0, 11.0), 2.7 * cycle)
    samples = round(seconds * RATE)
    breaths = synthesis.breathing(rng, seconds, patient.breath_rate)
    sound = synthesis.breath_noise(
        rng, samples, breaths, patient.corner * rng.uniform(0.85, 1.15), patient.slope, patient.expiration_level
    )
    sound += patient.heart_level * _HEART_AT[location] * synthesis.heart_beats(rng, samples, patient.heart_rate)
    sound += patient.floor_level * synthesis.coloured_noise(rng, samples, rng.uniform(150.0, 500.0), 12.0)
    if rng.random() < 0.15:  # a usable recording may be rubbed a little
        sound += 0.8 * synthesis.rubbing(rng, samples, 0.05)
    if rng.random() < 0.3:
        sound += synthesis.taps(rng, samples)

    events = []
    if types != _Q:
        whole = [b for b in breaths if b.inspiration[0] >= 0 and b.expiration[1] <= seconds - 0.05]
        for breath, kind in zip(whole, _types_of_breaths(rng, types, len(whole)), strict=True):
            start, end = _add_event(rng, sound, kind, breath, patient)
            events.append((round(1000 * max(start, 0.0)), round(1000 * min(end, seconds)), kind))
    level = patient.gain * float(np.exp(rng.normal(0.0, 0.2)))
    if types == _Q:
        sound, level = _spoil(rng, sound, level)
    sound = synthesis.recorder(sound) * level
    return np.clip(np.round(sound * 32767.0), -32768, 32767).astype("<i2"), events


def _types_of_breaths(rng: Generator, types: tuple[str, ...], breaths: int) -> list[str]:
    """A type for each breath: each of `types` once at least, the others by chance, some of them Normal."""
    others = [NORMAL if rng.random() < 0.35 else types[int(rng.integers(len(types)))] for _ in range(breaths)]
    chosen = [*types, *others[len(types) :]]
    return [chosen[index] for index in rng.permutation(breaths)]


def _add_event(rng: Generator, sound: np.ndarray, kind: str, breath: Breath, patient: Patient) -> tuple[float, float]:
    """Add the sounds of an event to the track; returns its start and end in seconds."""
    inspiration, expiration = breath.inspiration, breath.expiration
    whole = (inspiration[0], expiration[1])
    if kind == NORMAL:
        return (whole, whole, whole, inspiration, expiration)[int(rng.integers(5))]
    if kind == "Stridor":
        return _add_tone(rng, sound, synthesis.stridor, inspiration, 500.0, 850.0, (2.0, 10.0), patient)
    if kind == "Rhonchi":
        phase = expiration if rng.random() < 0.7 else inspiration
        return _add_tone(rng, sound, synthesis.rhonchus, phase, 105.0, 200.0, (-6.0, 6.0), patient)
    if kind == "Fine Crackle":
        late = inspiration[0] + rng.uniform(0.25, 0.5) * (inspiration[1] - inspiration[0])
        _add_crackles(rng, sound, synthesis.fine_crackle, (late, inspiration[1]), (8, 20))
        return inspiration if rng.random() < 0.6 else whole
    if kind == "Coarse Crackle":
        # Coarse ones come early in inspiration and throughout expiration.
        _add_crackles(rng, sound, synthesis.coarse_crackle, inspiration, (3, 7))
        if rng.random() < 0.5:
            _add_crackles(rng, sound, synthesis.coarse_crackle, expiration, (2, 6))
        return whole
    wheeze = _add_tone(rng, sound, synthesis.wheeze, expiration, 260.0, 700.0, (-12.0, 4.0), patient)
    if kind == "Wheeze":
        return wheeze
    one = synthesis.fine_crackle if rng.random() < 0.7 else synthesis.coarse_crackle
    _add_crackles(rng, sound, one, inspiration, (6, 14))
    return whole


def _add_tone(rng, sound, synthesize, phase, lowest, highest, level, patient) -> tuple[float, float]:
    """A musical sound in a phase of a breath, at a level drawn in dB of the breath sounds."""
    length = (phase[1] - phase[0]) * rng.uniform(0.5, 0.95)
    start = rng.uniform(phase[0], phase[1] - length)
    pitch = float(np.clip(np.exp(rng.uniform(np.log(lowest), np.log(highest))) * patient.pitch, lowest, highest))
    synthesis.place(sound, start, 10 ** (rng.uniform(*level) / 20) * synthesize(rng, length, pitch))
    return start - rng.uniform(0.0, 0.08), start + length + rng.uniform(0.0, 0.08)


def _add_crackles(rng, sound, one, phase, count) -> None:
    """Crackles at chance times in a phase of a breath, at levels drawn in dB of the breath sounds."""
    level = 10 ** (rng.uniform(0.0, 12.0) / 20)
    for time in rng.uniform(*phase, int(rng.integers(*count, endpoint=True))):
        synthesis.place(sound, time, level * float(np.exp(rng.normal(0.0, 0.3))) * one(rng))


def _spoil(rng: Generator, sound: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    """Make a recording one of Poor Quality; returns it and the level it is recorded at."""
    fault = _FAULTS[int(rng.integers(len(_FAULTS)))]
    if fault == "clipping":
        level = rng.uniform(0.2, 0.8)
    elif fault == "rubbing":
        sound = sound + rng.uniform(2.0, 6.0) * synthesis.rubbing(rng, len(sound), rng.uniform(0.4, 1.0))
    else:
        sound = sound.copy()
        start = round(rng.uniform(0.0, 0.3) * len(sound))
        sound[start : start + round(rng.uniform(0.5, 1.0) * len(sound))] = 0.0
    return sound, level
