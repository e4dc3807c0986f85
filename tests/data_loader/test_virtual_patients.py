from __future__ import annotations

import numpy as np
import pytest

from data_loader.classes import POOR_QUALITY
from data_loader.virtual_patients import PLANS, draw_patient, draw_recording

TYPES = sorted({types for _, plan in PLANS for types in plan})


def record(types, seed):
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng, 0, 0)
    return patient, draw_recording(rng, patient, types, "p1")


@pytest.mark.parametrize("types", TYPES, ids=" and ".join)
def test_a_recording_holds_what_the_plan_says_and_nothing_else_but_normal_breaths(types):
    for seed in range(6):
        _, (samples, events) = record(types, seed)
        kinds = {kind for _, _, kind in events}
        assert samples.dtype == np.int16
        assert kinds - {"Normal"} == set(types) - {"Normal", POOR_QUALITY}
        assert bool(events) == (types != (POOR_QUALITY,))


def test_small_children_breathe_and_beat_faster():
    patients = [draw_patient(np.random.default_rng(seed), seed, 1) for seed in range(60)]
    ages = [patient.age for patient in patients]
    assert 0.2 <= min(ages) < 2
    assert 10 < max(ages) <= 16.2
    for rate in ("breath_rate", "heart_rate"):
        assert np.corrcoef(ages, [getattr(patient, rate) for patient in patients])[0, 1] < -0.7


def test_wheezes_stand_out_in_the_spectrum_of_their_events_more_often_than_not():
    """Against the same patient breathing normally, the strongest 20 Hz above 250 Hz stick out of their neighbours."""

    def peakiness(samples, start, end):
        power = np.abs(np.fft.rfft(samples[8 * start : 8 * end] * np.hanning(8 * (end - start)), 8000)) ** 2
        bands = power[250:750].reshape(-1, 20).sum(axis=1)
        return (bands / np.convolve(bands, np.ones(7) / 7, mode="same")).max()

    found = {"Wheeze": [], "Normal": []}
    for seed in range(12):
        for kind, values in found.items():
            _, (samples, events) = record((kind,), seed)
            values += [peakiness(samples, start, end) for start, end, label in events if label == kind]
    normal, wheeze = np.array(found["Normal"]), np.array(found["Wheeze"])
    above = (wheeze[:, None] > normal).mean()  # the area under the ROC curve
    assert 0.75 < above < 1.0
