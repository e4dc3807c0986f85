import numpy as np
import pytest

from model.context import in_context


def _slow(prob, recordings, pi, weight):
    """By the definition, an event at a time."""
    result = []
    for n, (own, recording) in enumerate(zip(prob, recordings, strict=True)):
        others = [p for m, p in enumerate(prob) if recordings[m] == recording and m != n]
        proportions = np.mean([*others, pi], axis=0)
        changed = [
            p if not pi_c else p * (m / pi_c) ** weight for p, m, pi_c in zip(own, proportions, pi, strict=True)
        ]
        result.append(np.array(changed) / np.sum(changed))
    return np.array(result)


def _probabilities(n, classes, seed=0):
    return np.random.default_rng(seed).dirichlet([0.5] * classes, n).astype(np.float32)


@pytest.mark.parametrize("weight", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("pi", [[0.6, 0.3, 0.1], [0.7, 0.3, 0.0]])
def test_the_others_change_an_event_as_defined(pi, weight):
    prob, recordings = _probabilities(60, 3), [f"{n % 17}.wav" for n in range(60)]
    found = in_context(prob, recordings, pi, weight)
    assert found.dtype == np.float32
    assert np.allclose(found, _slow(prob, recordings, pi, weight), atol=1e-6)
    assert np.allclose(found.sum(1), 1, atol=1e-6)


def test_with_weight_1_it_is_bayes_rule_for_the_proportions_of_the_recording():
    # Whether a recording is of the ill or the healthy is not known; half of its events are known for certain.
    pi, certain, unclear = [0.8, 0.2], [0.0, 1.0], [0.8, 0.2]
    (_, _, found) = in_context([certain, certain, unclear], ["a"] * 3, pi, 1.0)
    # Two wheezes and one unknown event, which is a wheeze with the probability 0.2: proportions 0.8 / 3 and 2.2 / 3.
    assert found == pytest.approx([0.8 / 3, 2.2 / 3])


def test_an_event_alone_and_a_weight_of_0_change_nothing():
    prob = _probabilities(9, 4)
    pi = [0.4, 0.3, 0.2, 0.1]
    assert np.allclose(in_context(prob, range(9), pi, 1.0), prob, atol=1e-7)
    assert np.allclose(in_context(prob, ["a"] * 9, pi, 0.0), prob, atol=1e-7)


def test_neither_the_order_of_events_nor_those_of_other_recordings_matter():
    prob, recordings, pi = _probabilities(40, 3), np.arange(40) % 6, [0.5, 0.3, 0.2]
    found = in_context(prob, recordings, pi, 0.7)
    order = np.random.default_rng(1).permutation(40)
    assert np.allclose(in_context(prob[order], recordings[order], pi, 0.7), found[order], atol=1e-6)
    own = recordings == 4
    assert np.allclose(in_context(prob[own], recordings[own], pi, 0.7), found[own], atol=1e-6)


def test_where_events_of_a_recording_are_alike_more_are_right():
    generator = np.random.default_rng(0)
    ill = generator.random(400) < 0.25
    recordings = np.repeat(np.arange(400), 4)
    # Nine of ten events are like the recording; what a network hears of them is noisy.
    target = np.where(generator.random(1600) < 0.1, ~ill[recordings], ill[recordings]).astype(int)
    pi = np.bincount(target) / len(target)
    logit = np.log(pi[1] / pi[0]) + 2 * (2 * target - 1) + 2 * generator.standard_normal(1600)
    prob = np.stack([1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], axis=1)
    right, before = (np.mean(p.argmax(1) == target) for p in (in_context(prob, recordings, pi, 1.0), prob))
    assert right > before + 0.02
