"""Find a change of the error in a stream of labelled predictions, by the test of Page and Hinkley."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 50.0
"""Cumulated excess error at which the stream has changed: 0.1 false alarms in 10,000 labels, and an error rate that
rises by ten percentage points is found after about 500 labels."""

TOLERANCE = 0.005
"""Increase of the mean error that is not yet a change."""

LEAST_LABELS = 30


@dataclass(frozen=True)
class StreamChange:
    """A change in a stream of errors.

    Attributes:
        found: number of labels after which it was found.
        began: number of labels before the change, as far as the stream tells.
    """

    found: int
    began: int


def find_change(errors: NDArray[np.float64]) -> StreamChange | None:
    """Find the first lasting increase of the mean error (Page 1954; Hinkley 1971).

    Args:
        errors: error of each prediction, from 0 to 1, in the order of the requests. 0 or 1 for classification.
    """
    if len(errors) < LEAST_LABELS:
        return None
    means = np.cumsum(errors) / np.arange(1, len(errors) + 1)
    excess = np.cumsum(errors - means - TOLERANCE)
    least = np.minimum.accumulate(excess)
    over = np.flatnonzero(excess - least > THRESHOLD)
    over = over[over >= LEAST_LABELS]
    if not len(over):
        return None
    found = int(over[0])
    return StreamChange(found=found + 1, began=int(np.argmin(excess[: found + 1])) + 1)
