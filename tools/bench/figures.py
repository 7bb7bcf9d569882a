"""Measured figures with their comparison and target."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what was measured.
        value: the figure, as text with its unit ("9,412 req/s").
        against: the comparison, measured in the same run ("the same stack, a constant: 11,020 req/s"); "" for none.
        result: the ratio or figure that the target bounds, as text ("0.85").
        target: the target, as text ("≥ 0.7").
        met: True if the target is met.
    """

    name: str
    value: str
    against: str
    result: str
    target: str
    met: bool


def measure_part(name: str) -> list[Figure]:
    """Run a part of the benchmarks, and return its figures.

    Args:
        name: name of its module in `tools.bench`.
    """
    figures: list[Figure] = import_module(f"tools.bench.{name}").measure()
    return figures
