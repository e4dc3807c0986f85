"""The decision that maximises the score, and class proportions estimated without labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.decision import Priors, adapt, decide, estimate_proportions, read_priors


def population(seed, n_classes, n_kinds=4):
    """Items of a few kinds x: p(x|c), the true proportions pi, those that a model learnt, and its probabilities."""
    rng = np.random.default_rng(seed)
    given_class = rng.dirichlet(np.full(n_kinds, 0.7), size=n_classes)
    priors = Priors.of(rng.dirichlet(np.full(n_classes, 1.5)), rng.dirichlet(np.full(n_classes, 1.5)))
    joint = priors.q[:, None] * given_class
    return given_class, priors, (joint / joint.sum(0)).T


def expected_average_score(decision, given_class, pi, first):
    """(SE + SP) / 2 when all items of a kind get one class: by the definitions, class by class."""
    n_classes = len(pi)
    specificity = sum(given_class[0, x] for x, c in enumerate(decision) if c == 0)
    hits = sum(pi[c] * given_class[c, x] for x, c in enumerate(decision) if c >= first)
    return (specificity + hits / sum(pi[c] for c in range(first, n_classes))) / 2


@pytest.mark.parametrize("poor_quality, n_classes", [(False, 2), (False, 4), (True, 3), (True, 5)])
@pytest.mark.parametrize("seed", range(8))
def test_no_decision_of_all_scores_higher(poor_quality, n_classes, seed):
    given_class, priors, prob = population(seed, n_classes)
    first = 2 if poor_quality else 1
    best = max(
        expected_average_score(decision, given_class, priors.pi, first)
        for decision in itertools.product(range(n_classes), repeat=len(prob))
    )
    ours = decide(prob, "score", priors, poor_quality)
    assert expected_average_score(ours, given_class, priors.pi, first) == pytest.approx(best)


@pytest.mark.parametrize(
    "poor_quality, merged",
    [
        (False, ((0,), (1, 2, 3))),
        (True, ((0,), (1,), (2, 3, 4))),
        (True, ((0,), (1,), (2, 4), (3, 5))),
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_no_decision_of_all_scores_higher_where_finer_classes_are_put_together(poor_quality, merged, seed):
    finer_given_class, priors, prob = population(seed, sum(map(len, merged)))
    pi = np.array([priors.pi[list(own)].sum() for own in merged])
    given_class = np.stack([priors.pi[list(own)] @ finer_given_class[list(own)] for own in merged]) / pi[:, None]
    first = 2 if poor_quality else 1
    best = max(
        expected_average_score(decision, given_class, pi, first)
        for decision in itertools.product(range(len(merged)), repeat=len(prob))
    )
    ours = decide(prob, "score", priors, poor_quality, merged)
    assert expected_average_score(ours, given_class, pi, first) == pytest.approx(best)


def test_poor_quality_is_never_decided_for_the_score_and_always_where_it_is_likeliest_otherwise():
    priors = Priors.of([70, 20, 10], [1, 1, 1])
    sure = np.array([[0.0, 1.0, 0.0], [0.01, 0.98, 0.01]])
    assert 1 not in decide(sure, "score", priors, poor_quality=True)
    assert list(decide(sure, "argmax", priors, poor_quality=True)) == [1, 1]


def test_a_class_that_the_training_had_none_of_is_never_decided_for_the_score():
    priors = Priors.of([8, 0, 2], [8, 0, 2])
    assert 1 not in decide(np.array([[0.1, 0.8, 0.1], [0.0, 1.0, 0.0]]), "score", priors)


def test_a_rule_without_what_it_needs_is_refused():
    with pytest.raises(ValueError, match="no priors"):
        decide(np.eye(2), "score", None)
    with pytest.raises(ValueError, match="unknown"):
        decide(np.eye(2), "guess", Priors.of([1, 1], [1, 1]))


def slow_estimate(prob, q, steps):
    """Saerens, Latinne and Decaestecker, equations 2.4 and 2.5, item by item."""
    now = list(q)
    for _ in range(steps):
        posteriors = []
        for row in prob:
            terms = [now[c] / q[c] * row[c] for c in range(len(q))]
            posteriors.append([term / sum(terms) for term in terms])
        now = [sum(row[c] for row in posteriors) / len(posteriors) for c in range(len(q))]
    return now


def shifted_items(n, seed=0):
    """Items of three overlapping classes in proportions other than those q of a calibrated model."""
    rng = np.random.default_rng(seed)
    truth, q, means = np.array([0.15, 0.25, 0.6]), np.array([0.6, 0.3, 0.1]), np.array([-1.5, 0.0, 1.5])
    labels = rng.choice(3, size=n, p=truth)
    x = rng.normal(means[labels], 1.0)
    joint = q * np.exp(-0.5 * (x[:, None] - means) ** 2)
    return joint / joint.sum(1, keepdims=True), labels, truth, Priors.of(q, q)


def test_shifted_proportions_are_found_again_and_predict_better():
    prob, labels, truth, priors = shifted_items(8000)
    found = estimate_proportions(prob, priors)
    np.testing.assert_allclose(found, truth, atol=0.02)
    better = (adapt(prob, priors, found).argmax(1) == labels).mean()
    assert better > (prob.argmax(1) == labels).mean() + 0.1
    # As many are right as with the proportions themselves.
    assert better == pytest.approx((adapt(prob, priors, truth).argmax(1) == labels).mean(), abs=0.005)


def test_the_estimate_is_that_of_the_slow_definition():
    prob, _, _, priors = shifted_items(40, seed=5)
    assert estimate_proportions(prob, priors) == pytest.approx(slow_estimate(prob, priors.q, 500), abs=1e-4)


def test_proportions_that_did_not_change_stay():
    rng = np.random.default_rng(1)
    prob = rng.dirichlet([2.0, 1.0, 0.5], size=500)
    q = prob.mean(0)
    assert estimate_proportions(prob, Priors.of(q, q)) == pytest.approx(q)


def test_a_class_that_the_training_had_none_of_is_estimated_at_none():
    priors = Priors.of([3, 0, 1], [3, 0, 1])
    found = estimate_proportions(np.array([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0]]), priors)
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


def test_a_checkpoint_gives_back_its_priors():
    priors = Priors.of([30, 10], [1, 3])
    found = read_priors({"priors": priors.to_dict()}, "priors", 2)
    assert found.pi == pytest.approx([0.75, 0.25])
    assert found.q == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    "priors",
    [
        None,
        "even",
        {"pi": [0.5, 0.5]},
        {"pi": [0.5, 0.5], "q": [1.0]},
        {"pi": [0.2, 0.3, 0.5], "q": [0.2, 0.3, 0.5]},
        {"pi": [0.0, 0.0], "q": [0.5, 0.5]},
        {"pi": [-1.0, 2.0], "q": [0.5, 0.5]},
        {"pi": [float("nan"), 0.5], "q": [0.5, 0.5]},
        {"pi": [1e308, 1e308], "q": [0.5, 0.5]},
    ],
)
def test_what_is_no_priors_is_taken_for_none(priors):
    assert read_priors({"priors": priors}, "priors", 2) is None


def test_of_what_the_score_counts_the_most_probable_class_is_never_poor_quality():
    prob = np.array([[0.3, 0.6, 0.1], [0.1, 0.5, 0.4], [0.8, 0.1, 0.1]])
    assert decide(prob, "counted", poor_quality=True).tolist() == [0, 2, 0]
    # Events have no Poor Quality: class 1 is one like the others.
    assert decide(prob, "counted").tolist() == [1, 1, 0]
