"""An event in the context of its recording: what the other events of the recording say of it.

The events of a recording are much alike: in SPRSound's training set 88 % of the recordings have adventitious events
only, or none. A network that hears one event does not know that. Here the predictions for the others, never their
labels, say what proportions of classes the recording has, and Bayes' rule changes each prediction to these.
Proportions of unlabelled items are estimated likewise, from many more items, in Saerens, Latinne and Decaestecker,
Neural Computation 14(1), 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.decision import Priors, adapt


def in_context(prob: ArrayLike, recordings: ArrayLike, priors: Priors) -> NDArray[np.float32]:
    """The probabilities of events, given the events beside them.

    The proportions of class c where an event lies are m_c, the mean over the other events' probabilities and one
    more event of which nothing is known but pi_c. Its own probability becomes p_c m_c / pi_c up to a factor. That is
    Bayes' rule for events that are independent, given the proportions of their recording; nothing in it is tuned. The
    others' probabilities are brought from the proportions q of the network's training to pi first; what comes out is
    for q again, as decisions take it. An event that is alone stays as it is, and a class that did not occur in
    training is not changed by the others.

    Args:
        prob: ``(events, classes)`` probabilities of each event by itself.
        recordings: ``(events,)`` what recording each is of, by any name.
        priors: of the network.

    Returns:
        ``(events, classes)`` float32, each row summing to 1.
    """
    prob, pi = np.asarray(prob, dtype=np.float64), priors.pi
    _, recording, n_events = np.unique(np.asarray(recordings), return_inverse=True, return_counts=True)
    each = adapt(prob, priors, pi)
    sums = np.zeros((len(n_events), len(pi)))
    np.add.at(sums, recording, each)
    # A sum less one of its parts may fall below 0 by an error of rounding.
    near = ((sums[recording] - each).clip(0) + pi) / n_events[recording, None]
    changed = prob * np.divide(near, pi, out=np.ones_like(prob), where=pi > 0)
    return (changed / changed.sum(1, keepdims=True)).astype(np.float32)
