"""Numbers of pods that Kubernetes computes from numbers or percentages."""

from __future__ import annotations

import math
from collections.abc import Sequence


def surge_and_unavailable(surge: int | str, unavailable: int | str, replicas: int) -> tuple[int, int]:
    """Return how many pods may exist in excess, and how many may be missing, during an update.

    A percentage of the surge is rounded up, that of missing pods down. If both become 0, one may be missing.
    """
    most, fewest = _of(surge, replicas, up=True), _of(unavailable, replicas, up=False)
    return (most, fewest) if most or fewest else (0, 1)


def _of(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = replicas * int(value[:-1]) / 100
    return math.ceil(share) if up else math.floor(share)


def proportional_sizes(sizes: Sequence[int], bases: Sequence[int], total: int) -> list[int]:
    """Return new sizes of groups of pods, in proportion to their sizes. The first group gets what rounding leaves.

    If that is less than no pods, the first group gets none, and the sizes add up to more than the total.

    Args:
        sizes: numbers of pods, none of them 0.
        bases: total of which each size was a share.
        total: number of pods that all groups have together afterwards.
    """
    to_add, added = total - sum(sizes), 0
    result = []
    for size, base in zip(sizes, bases, strict=True):
        share = _round(size * total / base) - size if total else -size
        left = to_add - added
        share = min(share, left) if to_add > 0 else max(share, left)
        share = share if to_add else 0
        result.append(size + share)
        added += share
    result[0] = max(0, result[0] + to_add - added)
    return result


def _round(value: float) -> int:
    return math.floor(value + 0.5)
