"""An event in the context of its recording: what the other events of the recording say of it.

The events of a recording are much alike: in SPRSound's training set 88 % of the recordings have adventitious events
only, or none. A network that hears one event does not know that. Here the predictions for the others, never their
labels, say what proportions of classes the recording has, and each prediction is changed as Bayes' rule would for
these. Proportions of unlabelled items are estimated likewise, from many more items, in Saerens, Latinne and
Decaestecker, Neural Computation 14(1), 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def in_context(prob: ArrayLike, recordings: ArrayLike, pi: ArrayLike, weight: float) -> NDArray[np.float32]:
    """The probabilities of events, given the events beside them.

    The proportions of class c where an event lies are m_c, the mean over the other events' probabilities and one
    more event of which nothing is known but pi_c. Its own probability becomes p_c (m_c / pi_c)^weight up to a factor.
    With the weight 1 that is Bayes' rule for a network that was trained on classes in their proportions, and for
    events that are independent, given those of the recording. Errors within a recording are not independent, which a
    smaller weight allows for. A network that was shown rare classes more often gives them higher probabilities, here
    of the others as well: it is not corrected for, and a recording of usual proportions then moves a little towards
    them. An event that is alone stays as it is, and a class that did not occur in training is not changed by the
    others.

    Args:
        prob: ``(events, classes)`` probabilities of each event by itself.
        recordings: ``(events,)`` what recording each is of, by any name.
        pi: ``(classes,)`` class proportions of the training items.
        weight: 0, which changes nothing, to 1.

    Returns:
        ``(events, classes)`` float32, each row summing to 1.
    """
    prob, pi = np.asarray(prob, dtype=np.float64), np.asarray(pi, dtype=np.float64)
    _, recording, n_events = np.unique(np.asarray(recordings), return_inverse=True, return_counts=True)
    sums = np.zeros((len(n_events), len(pi)))
    np.add.at(sums, recording, prob)
    # A sum less one of its parts may fall below 0 by an error of rounding.
    near = ((sums[recording] - prob).clip(0) + pi) / n_events[recording, None]
    ratio = np.divide(near, pi, out=np.ones_like(prob), where=pi > 0)
    changed = prob * ratio**weight
    return (changed / changed.sum(1, keepdims=True)).astype(np.float32)
