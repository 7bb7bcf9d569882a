"""Volume of a dataset: the number of rows of a period against those before it, with their weekly season."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict

SEASON = 7
"""Periods of a season: days of a week."""

LEAST_SEASONS = 3
"""Seasons without which no season is fitted."""

LEAST_PERIODS = 8
"""Periods without which the volume is unknown."""

ALARM_DEVIATIONS = 3.5
"""Deviations from the forecast that are an alarm, if the change is also large."""

WATCH_DEVIATIONS = 3.0

LEAST_CHANGE = 0.2
"""Least change that is an alarm, as a share of the expected number of rows."""

_ROBUST = 1.4826  # the standard deviation of a normal distribution, by its median absolute deviation
_SMOOTHING = tuple(product((0.05, 0.1, 0.2, 0.35), (0.05, 0.15, 0.3)))
_LEAST_SCALE = 0.03
_CLIP = 2.5
_CLIPPED_VARIANCE = 0.9775  # variance of a standard normal variable that is clipped at `_CLIP`


@dataclass(frozen=True)
class Forecast:
    """Expected number of rows of a period.

    Attributes:
        rows: the expected number.
        scale: standard deviation of the logarithm of the number.
    """

    rows: float
    scale: float

    def bounds(self, deviations: float) -> tuple[float, float]:
        """Return the numbers of rows a number of deviations below and above the expected one."""
        return self.rows * math.exp(-deviations * self.scale), self.rows * math.exp(deviations * self.scale)


def forecast_volume(history: Sequence[int | None], *, seasonal: bool) -> Forecast | None:
    """Forecast the number of rows of the next period.

    With enough history, by seasonal exponential smoothing of the logarithms (Holt-Winters without a trend), whose
    innovations are clipped so that one odd period does not spoil the forecasts after it; else by the median.

    Args:
        history: rows of each period before it, the oldest first; None for a period without a delivery.
        seasonal: True if periods are days.

    Returns:
        The forecast; None if there are too few periods, or none on this day of the week.
    """
    logs = np.array([math.log(rows) if rows else math.nan for rows in history])
    there = logs[~np.isnan(logs)]
    if len(there) < LEAST_PERIODS:
        return None
    if not seasonal or len(logs) < LEAST_SEASONS * SEASON:
        centre = float(np.median(there))
        return _forecast(centre, there - centre)
    fits = [_smoothed(logs, level, season) for level, season in _SMOOTHING]
    best = min(fits, key=lambda fit: _robust_error(fit[1]))
    expected, innovations = best
    return None if math.isnan(expected) else _forecast(expected, innovations)


def _forecast(expected: float, deviations: NDArray[np.float64]) -> Forecast:
    there = np.abs(deviations[~np.isnan(deviations)])
    scale = 0.0
    if len(there):
        limit = _CLIP * _ROBUST * float(np.median(there))
        scale = math.sqrt(float((np.minimum(there, limit) ** 2).mean()) / _CLIPPED_VARIANCE)
    # A count varies at least as a Poisson variable does.
    return Forecast(math.exp(expected), max(scale, _LEAST_SCALE, math.exp(-expected / 2)))


def _robust_error(innovations: NDArray[np.float64]) -> float:
    there = np.abs(innovations[~np.isnan(innovations)])
    limit = _CLIP * _ROBUST * float(np.median(there)) if len(there) else 0.0
    return float((np.minimum(there, limit) ** 2).sum())


def _smoothed(logs: NDArray[np.float64], alpha: float, gamma: float) -> tuple[float, NDArray[np.float64]]:
    """Smooth a series; return the next expected logarithm, and the one-step errors of the forecasts after the start."""
    start = logs[: 2 * SEASON]
    level = float(np.nanmean(start))
    season = [
        float(np.nanmean(values)) - level if not np.isnan(values := start[day::SEASON]).all() else math.nan
        for day in range(SEASON)
    ]
    innovations = np.full(len(logs), math.nan)
    scale = math.nan
    for index in range(2 * SEASON, len(logs)):
        value, day = float(logs[index]), index % SEASON
        if math.isnan(value):
            continue
        if math.isnan(season[day]):
            season[day] = value - level
            continue
        error = value - level - season[day]
        innovations[index] = error
        bounded = error if math.isnan(scale) else max(-_CLIP * scale, min(_CLIP * scale, error))
        scale = (
            max(abs(bounded), _LEAST_SCALE)
            if math.isnan(scale)
            else 0.9 * scale + 0.1 * max(1.2533 * abs(bounded), _LEAST_SCALE)
        )
        level += alpha * bounded
        season[day] += gamma * (1 - alpha) * bounded
    return level + season[len(logs) % SEASON], innovations


def volume_bounds(forecast: Forecast, deviations: float = ALARM_DEVIATIONS) -> tuple[float, float]:
    """Return the numbers of rows outside which a period is odd: far from the forecast, and a large change."""
    low, high = forecast.bounds(deviations)
    return min(low, forecast.rows * (1 - LEAST_CHANGE)), max(high, forecast.rows * (1 + LEAST_CHANGE))


def judge_volume(rows: int, history: Sequence[int | None], *, seasonal: bool) -> MonitorFinding:
    """Judge the number of rows of the newest period.

    Args:
        rows: the number.
        history: rows of the periods before it; see `forecast_volume`.
        seasonal: True if periods are days.
    """
    forecast = forecast_volume(history, seasonal=seasonal)
    if forecast is None:
        known = sum(1 for each in history if each)
        reason = "no earlier delivery on this day of the week"
        if known < LEAST_PERIODS:
            reason = f"{known} of at least {LEAST_PERIODS} earlier {'days' if seasonal else 'deliveries'} with rows"
        return MonitorFinding(
            check="volume", verdict="unknown", figure=float(rows), unit="rows", rows=rows, reason=reason
        )
    low, high = volume_bounds(forecast)
    near_low, near_high = volume_bounds(forecast, WATCH_DEVIATIONS)
    verdict: MonitorVerdict = "ok"
    if not low <= rows <= high:
        verdict = "alarm"
    elif not near_low <= rows <= near_high:
        verdict = "watch"
    change = rows / forecast.rows - 1
    return MonitorFinding(
        check="volume",
        verdict=verdict,
        figure=float(rows),
        threshold=low if change < 0 else high,
        unit="rows",
        rows=rows,
        reason=f"{abs(change):.0%} {'fewer' if change < 0 else 'more'} rows than the {forecast.rows:,.0f} expected "
        f"for this {'day' if seasonal else 'delivery'}",
    )
