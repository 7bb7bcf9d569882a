"""Find a rise of the error rate in a stream of labelled predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_EVIDENCE = 8.0
"""Logarithm of the likelihood ratio from which a stream has changed.

Without a change, about one of a hundred streams has as much, whether it has a thousand labels or a million: the number
of places at which a change can begin counts by its logarithm only.
"""

LEAST_LABELS = 30
"""Least number of labels before and after a change."""

MOST_PLACES = 100_000
"""Places of a longer stream at which a change is looked for, so that memory does not depend on its length."""


@dataclass(frozen=True)
class StreamChange:
    """A rise of the error rate.

    Attributes:
        began: number of labels before it.
        before, after: error rates until then and since then.
    """

    began: int
    before: float
    after: float


def find_change(wrong: NDArray[np.bool_]) -> StreamChange | None:
    """Find where the error rate rose, by the likelihood ratio of one change against none; None if chance explains it.

    The rates are those of all labels before and after, so a rise that is over again counts for little.

    Args:
        wrong: True for each prediction that is wrong, in the order of the requests.
    """
    number = len(wrong)
    if number < 2 * LEAST_LABELS:
        return None
    before = np.arange(LEAST_LABELS, number - LEAST_LABELS + 1, max(1, number // MOST_PLACES))
    counts: NDArray[np.int64] = np.cumsum(wrong, dtype=np.int64)
    first, total = counts[before - 1], counts[-1]
    after, last = number - before, total - first
    evidence = _log_likelihood(first, before) + _log_likelihood(last, after)
    evidence -= _log_likelihood(counts[-1:], np.array([number]))
    evidence[last / after <= first / before] = 0.0
    at = int(evidence.argmax())
    if evidence[at] < LEAST_EVIDENCE:
        return None
    return StreamChange(int(before[at]), float(first[at] / before[at]), float(last[at] / after[at]))


def _log_likelihood(wrong: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithm of the greatest likelihood of so many wrong predictions."""
    found = np.zeros(len(wrong))
    for part in (wrong, number - wrong):
        found += part * np.log(np.maximum(part, 1) / number)
    return found
