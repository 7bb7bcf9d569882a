"""Rates with their confidence intervals and bounds."""

from __future__ import annotations

from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class MeasuredRate:
    """Share of simulated runs in which something happened.

    Attributes:
        name: what happened.
        runs: number of runs.
        events: runs in which it happened.
        at_most: bound of the interval's upper end; None if there is none.
        at_least: bound of the interval's lower end; None if there is none.
    """

    name: str
    runs: int
    events: int
    at_most: float | None = None
    at_least: float | None = None

    @property
    def rate(self) -> float:
        """The measured share."""
        return self.events / self.runs

    @property
    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) 95 % interval of the share."""
        from scipy.stats import binomtest

        found = binomtest(self.events, self.runs).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)

    @property
    def met(self) -> bool:
        """True if the whole interval keeps the bounds."""
        low, high = self.interval
        return (self.at_most is None or high <= self.at_most) and (self.at_least is None or low >= self.at_least)

    @property
    def bound(self) -> str:
        """The bounds as text; "" if there are none."""
        parts = [f"≤ {_percent(self.at_most)}"] if self.at_most is not None else []
        parts += [f"≥ {_percent(self.at_least)}"] if self.at_least is not None else []
        return ", ".join(parts)

    def as_json(self) -> dict[str, object]:
        """Return the rate as an entry of `simulations.json`."""
        return {
            "name": self.name,
            "runs": self.runs,
            "rate": self.rate,
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
            _percent(self.rate),
            f"{_percent(low)} to {_percent(high)}",
            self.bound,
            ("yes" if self.met else "**no**") if self.bound else "",
        )
        return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
