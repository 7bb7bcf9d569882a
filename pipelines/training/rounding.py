"""Rounding of figures that a bundle records."""

from __future__ import annotations

import math

DIGITS = 9
"""Number of significant digits of a figure. Further digits differ between machines."""


def rounded(value: float) -> float:
    """Return `value` rounded to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def rounded_or_none(value: float) -> float | None:
    """Return `value` rounded, or None if it is not finite."""
    return rounded(float(value)) if math.isfinite(value) else None
