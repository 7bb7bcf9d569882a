"""Lengths of time as Argo Rollouts writes them."""

from __future__ import annotations

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(duration: int | str) -> float:
    """Seconds of `30`, `"30"`, `"30s"`, `"10m"`, `"1h"`; raises ValueError for anything else."""
    if isinstance(duration, int):
        return float(duration)
    number, unit = (duration[:-1], duration[-1]) if duration[-1:] in _UNITS else (duration, "s")
    return float(int(number) * _UNITS[unit])
