"""Simulations of the checks of a dataset's monitor. They call the product's own code.

Drift: windows of 20 columns. Without a change, all keep their distribution; with one, the first column changes. Volume:
a weekly season with quieter weekends, a slowly wandering level, and 7 % of noise from day to day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from pipelines.declarations.contract import Column
from pipelines.declarations.data_monitoring import DataMonitorSettings
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.column_drift import compare_column, judge_drift
from pipelines.monitoring.column_profiles import profile_streams
from pipelines.monitoring.volume import judge_volume
from tools.simulate.rates import Run, Simulation

Sample = Callable[[np.random.Generator, int], Any]

COLUMNS = 20
REFERENCE_ROWS = 20_000
UNCHANGED_REFERENCE_ROWS = 5_000
"""Earlier rows of columns that do not change: the distribution of their p-values does not depend on the number."""

MANY_ROWS, MANY_EARLIER_ROWS = 1_000_000, 200_000
BATCH_ROWS = 65_536
"""Rows that the monitor reads at once."""

SETTINGS = DataMonitorSettings()
HISTORY_DAYS = 26 * 7
NOISE = 0.07
WEEK = np.log([1.0, 1.05, 1.1, 1.0, 0.9, 0.4, 0.3])

_NUMBERS = [Column.model_validate_json(f'{{"name": "c{n}", "logicalType": "number"}}') for n in range(COLUMNS)]
_TEXTS = [Column.model_validate_json(f'{{"name": "c{n}", "logicalType": "string"}}') for n in range(COLUMNS)]
_LEVELS = pa.array(list("abcdefghij"))
_ZIPF = np.cumsum(1 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum())


def normal(rng: np.random.Generator, rows: int) -> Any:
    """Draw a column without a change."""
    return rng.normal(size=rows)


def moved(mean: float = 0.0, deviation: float = 1.0) -> Sample:
    """Return a column with another mean or deviation."""
    return lambda rng, rows: rng.normal(mean, deviation, rows)


def on_one_value(rng: np.random.Generator, rows: int) -> Any:
    """Draw a column in which 10 % of the rows have one value."""
    values = rng.normal(size=rows)
    values[rng.random(rows) < 0.1] = 0.5
    return values


def outlying(rng: np.random.Generator, rows: int) -> Any:
    """Draw a column in which 5 % of the rows are 3 standard deviations higher."""
    values = rng.normal(size=rows)
    values[rng.random(rows) < 0.05] += 3
    return values


def levels(rng: np.random.Generator, rows: int) -> Any:
    """Draw a categorical column without a change."""
    return _LEVELS.take(pa.array(np.searchsorted(_ZIPF, rng.random(rows) * _ZIPF[-1])))


def window_verdicts(rng: np.random.Generator, rows: int, sample: Sample, first: Sample) -> dict[str, str]:
    """Compare one window of 20 columns, of which the first may have changed; return the verdict of each."""
    columns = _TEXTS if sample is levels else _NUMBERS
    before = UNCHANGED_REFERENCE_ROWS if first is sample else REFERENCE_ROWS
    comparisons = [compared(columns[0], sample(rng, before), first(rng, rows))]
    comparisons += [
        compared(column, sample(rng, UNCHANGED_REFERENCE_ROWS), sample(rng, rows)) for column in columns[1:]
    ]
    return {each.subject: each.verdict for each in judge_drift(comparisons, SETTINGS)}


def compared(column: Column, reference: Any, current: Any) -> ColumnComparison:
    """Profile and compare a column."""
    streams = (pa.table({column.name: values}).to_batches(BATCH_ROWS) for values in (reference, current))
    old, new = profile_streams([column], *streams)
    return compare_column(column.name, old[column.name], new[column.name])


def no_change(sample: Sample, rows: int) -> Run:
    """Return a run: True if a window without a change raises an alarm."""
    return lambda rng: "alarm" in window_verdicts(rng, rows, sample, sample).values()


def change(first: Sample, rows: int) -> Run:
    """Return a run: True if a window whose first column changed raises an alarm for it."""
    return lambda rng: window_verdicts(rng, rows, normal, first)["c0"] == "alarm"


def negligible_change(rng: np.random.Generator) -> bool:
    """Return True if 0.02 standard deviations raise an alarm in a million rows."""
    one = compared(_NUMBERS[0], rng.normal(0, 1, MANY_EARLIER_ROWS), rng.normal(0.02, 1, MANY_ROWS))
    return judge_drift([one], SETTINGS)[0].verdict == "alarm"


def any_column_below_5_percent(rng: np.random.Generator) -> bool:
    """Return True if the naive rule "any p-value below 0.05" alarms in a window of 20 columns without a change."""
    return any(
        stats.ks_2samp(rng.normal(size=UNCHANGED_REFERENCE_ROWS), rng.normal(size=1_000), method="asymp").pvalue < 0.05
        for _ in range(COLUMNS)
    )


def significant_at_any_size(rng: np.random.Generator) -> bool:
    """Return True if the naive rule "p-value below 0.05" alarms at 0.02 standard deviations in a million rows."""
    samples = rng.normal(0, 1, MANY_EARLIER_ROWS), rng.normal(0.02, 1, MANY_ROWS)
    return bool(stats.ks_2samp(*samples, method="asymp").pvalue < 0.05)


def psi_above_02(rng: np.random.Generator) -> bool:
    """Return True if the naive rule "PSI above 0.2" finds a change of the mean by 0.3 standard deviations."""
    return compared(_NUMBERS[0], rng.normal(0, 1, REFERENCE_ROWS), rng.normal(0.3, 1, 1_000)).psi > 0.2


def daily_series(rng: np.random.Generator, days: int) -> list[int]:
    """Draw the rows of days: a weekly season, a level that wanders slowly, and noise."""
    level = np.log(10_000) + np.cumsum(rng.normal(0, 0.005, days))
    expected = np.exp(level + WEEK[np.arange(days) % 7] + rng.normal(0, NOISE, days))
    return [int(rows) for rows in rng.poisson(expected)]


def volume_day(share: float) -> Run:
    """Return a run: True if a day with a share of its rows raises an alarm."""

    def run(rng: np.random.Generator) -> bool:
        *history, today = daily_series(rng, HISTORY_DAYS + 1)
        return judge_volume(int(share * today), history, seasonal=True).verdict == "alarm"

    return run


def plain_z_above_2(share: float) -> Run:
    """Return a run: True if the naive rule "z-score over all days above 2" alarms on a day with a share of its rows."""

    def run(rng: np.random.Generator) -> bool:
        *history, today = daily_series(rng, HISTORY_DAYS + 1)
        return bool(abs(share * today - np.mean(history)) > 2 * np.std(history))

    return run


ANY_P = "naive rule: any p < 0.05 of 20 columns, alarm without a change"
_ANY_SIZE = "naive rule: p < 0.05, mean + 0.02 sd is an alarm in 1,000,000 rows"
_PSI = "naive rule: PSI > 0.2 finds mean + 0.3 sd in 1,000 rows"
_Z = {share: f"naive rule: z > 2 without a season, {100 * share:g} % of a day's rows" for share in (1.0, 0.7, 0.5)}


def _unchanged(sample: Sample, rows: int, *naive: str) -> Simulation:
    return Simulation(no_change(sample, rows), at_most=0.065, naive=naive)


def _changed(first: Sample, rows: int, at_least: float, *naive: str) -> Simulation:
    return Simulation(change(first, rows), at_least=at_least, naive=naive)


SIMULATIONS: Mapping[str, Simulation] = {
    "drift: alarm without a change, 20 numeric columns, 1,000 rows": _unchanged(normal, 1_000, ANY_P),
    "drift: alarm without a change, 20 numeric columns, 2,000 rows": _unchanged(normal, 2_000),
    "drift: alarm without a change, 20 categorical columns, 1,000 rows": _unchanged(levels, 1_000),
    "drift: alarm without a change, 20 categorical columns, 2,000 rows": _unchanged(levels, 2_000),
    "drift: mean + 0.2 sd found in 1,000 rows": _changed(moved(0.2), 1_000, 0.95, _PSI),
    "drift: mean + 0.15 sd found in 2,000 rows": _changed(moved(0.15), 2_000, 0.95),
    "drift: sd x 1.25 found in 1,000 rows": _changed(moved(0.0, 1.25), 1_000, 0.95),
    "drift: 10 % of rows on one value found in 1,000 rows": _changed(on_one_value, 1_000, 0.95),
    "drift: 5 % of rows + 3 sd found in 2,000 rows": _changed(outlying, 2_000, 0.8),
    "drift: mean + 0.02 sd is an alarm in 1,000,000 rows": Simulation(
        negligible_change, 1_000, at_most=0.01, naive=(_ANY_SIZE,)
    ),
    "volume: alarm on a day without a change": Simulation(volume_day(1.0), 10_000, at_most=0.002, naive=(_Z[1.0],)),
    "volume: 30 % drop found": Simulation(volume_day(0.7), at_least=0.8, naive=(_Z[0.7],)),
    "volume: 50 % drop found": Simulation(volume_day(0.5), at_least=0.99, naive=(_Z[0.5],)),
    ANY_P: Simulation(any_column_below_5_percent),
    _ANY_SIZE: Simulation(significant_at_any_size, 200),
    _PSI: Simulation(psi_above_02),
    **{name: Simulation(plain_z_above_2(share)) for share, name in _Z.items()},
}
"""Every simulation, by what happens."""
