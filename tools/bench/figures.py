"""What a measurement says: a figure, what it is held against, and whether the target is met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured, as a reader would say it.
        value: the figure, as text with its unit ("9,412 req/s").
        against: what it is held against, measured in the same run ("the same stack, a constant: 11,020 req/s"),
            or "" for a figure on its own.
        result: the ratio or the figure that the target speaks of, as text ("0.85").
        target: the target, as text ("≥ 0.7").
        met: whether the target is met.
    """

    name: str
    value: str
    against: str
    result: str
    target: str
    met: bool
