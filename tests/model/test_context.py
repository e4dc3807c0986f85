import numpy as np
import pytest

from model.context import in_context
from model.decision import Priors


def _slow(prob, recordings, pi, q):
    """By the definition, an event at a time."""
    result = []
    for n, own in enumerate(prob):
        others = []
        for m, other in enumerate(prob):
            if recordings[m] == recordings[n] and m != n:
                drawn = [p * pi_c / q_c if q_c else 0.0 for p, pi_c, q_c in zip(other, pi, q, strict=True)]
                others.append(np.array(drawn) / np.sum(drawn))
        proportions = np.mean([*others, pi], axis=0)
        ratios = [m / pi_c if pi_c else 1.0 for m, pi_c in zip(proportions, pi, strict=True)]
        changed = own * np.array(ratios)
        result.append(changed / changed.sum())
    return np.array(result)


def _probabilities(n, classes, seed=0):
    return np.random.default_rng(seed).dirichlet([0.5] * classes, n).astype(np.float32)


@pytest.mark.parametrize("q", [[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]])
@pytest.mark.parametrize("pi", [[0.6, 0.3, 0.1], [0.7, 0.3, 0.0]])
def test_the_others_change_an_event_as_defined(pi, q):
    prob, recordings = _probabilities(60, 3), [f"{n % 17}.wav" for n in range(60)]
    found = in_context(prob, recordings, Priors.of(pi, q))
    assert found.dtype == np.float32
    assert np.allclose(found, _slow(prob, recordings, pi, q), atol=1e-6)
    assert np.allclose(found.sum(1), 1, atol=1e-6)


def test_it_is_bayes_rule_for_the_proportions_of_the_recording():
    # Two events are wheezes for certain; a third has as much of a wheeze as any.
    certain, unclear = [0.0, 1.0], [0.8, 0.2]
    (_, _, found) = in_context([certain, certain, unclear], ["a"] * 3, Priors.of(unclear, unclear))
    # The proportions are those of two wheezes and of one unknown event: 0.8 / 3 and 2.2 / 3.
    assert found == pytest.approx([0.8 / 3, 2.2 / 3])


def test_an_event_alone_stays_as_it_is():
    prob = _probabilities(9, 4)
    assert np.allclose(in_context(prob, range(9), Priors.of([4, 3, 2, 1], [1, 2, 3, 4])), prob, atol=1e-7)


@pytest.mark.parametrize("q", [[0.75, 0.25], [0.5, 0.5], [0.14, 0.86]])
def test_events_of_which_nothing_is_known_say_nothing_of_each_other_however_classes_were_drawn(q):
    found = in_context([q] * 5, ["a"] * 5, Priors.of([0.75, 0.25], q))
    assert np.allclose(found, q, atol=1e-6)


def test_neither_the_order_of_events_nor_those_of_other_recordings_matter():
    prob, recordings, priors = _probabilities(40, 3), np.arange(40) % 6, Priors.of([5, 3, 2], [1, 1, 1])
    found = in_context(prob, recordings, priors)
    order = np.random.default_rng(1).permutation(40)
    assert np.allclose(in_context(prob[order], recordings[order], priors), found[order], atol=1e-6)
    own = recordings == 4
    assert np.allclose(in_context(prob[own], recordings[own], priors), found[own], atol=1e-6)


def test_where_events_of_a_recording_are_alike_more_are_right():
    generator = np.random.default_rng(0)
    ill = generator.random(400) < 0.25
    recordings = np.repeat(np.arange(400), 4)
    # Nine of ten events are like the recording; what a network hears of them is noisy.
    target = np.where(generator.random(1600) < 0.1, ~ill[recordings], ill[recordings]).astype(int)
    pi = np.bincount(target) / len(target)
    logit = np.log(pi[1] / pi[0]) + 2 * (2 * target - 1) + 2 * generator.standard_normal(1600)
    prob = np.stack([1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], axis=1)
    changed = in_context(prob, recordings, Priors.of(pi, pi))
    right, before = (np.mean(p.argmax(1) == target) for p in (changed, prob))
    assert right > before + 0.02
