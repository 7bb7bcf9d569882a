"""Simulations, and what they measured: rates and means with their confidence intervals and bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

Run = Callable[[np.random.Generator], float]
"""One run: True if something happened; for a mean, a share such as an error."""


@dataclass(frozen=True)
class Simulation:
    """A simulation: what to run, how often, and what must hold.

    Attributes:
        run: one run.
        runs: number of runs.
        at_most: bound of the interval's upper end; None if there is none.
        at_least: bound of the interval's lower end; None if there is none.
        is_mean: True to measure the mean of the runs, in percentage points; False for the share of runs in which
            something happened.
        naive: names of the simulations of naive rules with the same data.
    """

    run: Run
    runs: int = 1_000
    at_most: float | None = None
    at_least: float | None = None
    is_mean: bool = False
    naive: tuple[str, ...] = ()

    def measured(self, name: str, runs: int, total: float, squares: float) -> MeasuredRate:
        """Return the rate or mean.

        Args:
            name: what happened.
            runs: number of runs that were made.
            total, squares: sums of their values and of the squares.
        """
        if self.is_mean:
            return MeasuredMean(name, runs, total, self.at_most, self.at_least, squares)
        return MeasuredRate(name, runs, total, self.at_most, self.at_least)


@dataclass(frozen=True)
class MeasuredRate:
    """Share of simulated runs in which something happened.

    Attributes:
        name: what happened.
        runs: number of runs.
        events: runs in which it happened; for a mean, the sum of the values.
        at_most: bound of the interval's upper end; None if there is none.
        at_least: bound of the interval's lower end; None if there is none.
    """

    name: str
    runs: int
    events: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def unit(self) -> str:
        """The unit of the rate times 100."""
        return "%"

    @property
    def rate(self) -> float:
        """The measured share."""
        return self.events / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) 95 % interval of the share."""
        from scipy.stats import binomtest

        found = binomtest(int(self.events), self.runs).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)

    @property
    def met(self) -> bool:
        """True if the whole interval keeps the bounds."""
        low, high = self.interval
        return (self.at_most is None or high <= self.at_most) and (self.at_least is None or low >= self.at_least)

    @property
    def bound(self) -> str:
        """The bounds as text; "" if there are none."""
        parts = [f"≤ {self._text(self.at_most)}"] if self.at_most is not None else []
        parts += [f"≥ {self._text(self.at_least)}"] if self.at_least is not None else []
        return ", ".join(parts)

    def as_json(self) -> dict[str, object]:
        """Return the rate as an entry of `simulations.json`."""
        return {
            "name": self.name,
            "runs": self.runs,
            "rate": self.rate,
            "unit": self.unit,
            "interval": list(self.interval),
            "bound": {"at_most": self.at_most, "at_least": self.at_least},
            "met": self.met,
        }

    def row(self) -> str:
        """Return the rate as a row of a Markdown table."""
        low, high = self.interval
        cells = (
            self.name,
            f"{self.runs:,}",
            self._text(self.rate),
            f"{self._text(low)} to {self._text(high)}",
            self.bound,
            ("yes" if self.met else "**no**") if self.bound else "",
        )
        return "| " + " | ".join(cells) + " |"

    def _text(self, share: float) -> str:
        return f"{100 * share:.3g} {self.unit}"


@dataclass(frozen=True)
class MeasuredMean(MeasuredRate):
    """Mean over simulated runs, such as the mean absolute error of an estimate.

    Attributes:
        squares: sum of the squared values.
    """

    squares: float = 0.0

    @property
    def unit(self) -> str:
        """The unit of the mean times 100."""
        return "pp"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by the normal distribution."""
        from scipy.stats import norm

        spread = max(0.0, self.squares / self.runs - self.rate**2)
        half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(spread / max(self.runs - 1, 1))
        return self.rate - half, self.rate + half
