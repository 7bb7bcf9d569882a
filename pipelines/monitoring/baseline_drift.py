"""Compare the requests of a window with the baseline of the bundle that answered them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.declarations.baseline import Baseline, Categorical, Numeric, category
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.column_drift import Sides, compare_column
from pipelines.monitoring.drift_tests import adjusted, proportion_p_value
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict
from pipelines.monitoring.profile_counter import OTHER_LEVELS, ColumnProfile, ProfileCounter, ProfilePlan
from pipelines.monitoring.request_log import LoggedRows

OUTSIDE_DIFFERENCE = 0.01
"""Least share of rows outside the training data's range that is an alarm."""

_MISSING = "the bundle's baseline has no values"

FEATURES = Sides(
    drift="input-drift",
    nulls="input-quality",
    missing=_MISSING,
    current="in the window",
    reference="in the baseline",
    unseen="the training data does not have",
    before="in the training data",
)
OUTPUTS = replace(
    FEATURES, drift="prediction-drift", unseen="were never predicted for the holdout", before="for the holdout"
)


class BaselineCounter:
    """Counts rows over the bins and levels of a baseline.

    Args:
        baseline: the bundle's baseline.
        classes: classes in the order of the probabilities; None for regression.
        ignored: features to leave out.
    """

    def __init__(self, baseline: Baseline, classes: Sequence[str | int] | None, ignored: Sequence[str] = ()) -> None:
        self._features = {name: each for name, each in baseline.features.items() if name not in ignored}
        self._outputs = baseline.outputs
        self._classes = None if classes is None else np.array([category(each) for each in classes])
        self._counters = {name: ProfileCounter(_plan(each)) for name, each in self._features.items()}
        self._output_counters = {name: ProfileCounter(_plan(each)) for name, each in self._outputs.items()}
        self._outside = dict.fromkeys(self._features, 0)

    def add(self, rows: LoggedRows) -> None:
        """Count rows."""
        number = len(rows.times)
        for name, counter in self._counters.items():
            index = rows.features.schema.get_field_index(name)
            array = rows.features.column(index) if index >= 0 else None
            if array is not None:
                self._outside[name] += _outside(self._features[name], array)
            counter.add(array, number)
        for name, counter in self._output_counters.items():
            counter.add(pa.array(self._output(name, rows)), number)

    def _output(self, name: str, rows: LoggedRows) -> NDArray[Any]:
        if self._classes is None:
            return rows.predicted
        if name == "label":
            labels: NDArray[Any] = self._classes[rows.predicted.argmax(axis=1)]
            return labels
        wanted = [f"probabilities[{each}]" for each in self._classes].index(name)
        return np.asarray(rows.predicted[:, wanted])

    def leave_out(self, names: Iterable[str]) -> None:
        """Leave out features, such as those that were not logged."""
        for name in names:
            self._features.pop(name, None)
            self._counters.pop(name, None)

    def features(self) -> tuple[ColumnComparison, ...]:
        """Compare the features with the baseline."""
        return _compare(self._features, self._counters)

    def outputs(self) -> tuple[ColumnComparison, ...]:
        """Compare the predictions with the baseline."""
        return _compare(self._outputs, self._output_counters)

    def outside(self) -> dict[str, tuple[int, int, int]]:
        """Return feature → rows outside the baseline, rows with a value, and rows of the baseline with a value."""
        found = {}
        for name, counter in self._counters.items():
            there = counter.profile().values
            found[name] = (self._outside[name], there, self._features[name].rows - self._features[name].nulls)
        return found


def _plan(column: Numeric | Categorical) -> ProfilePlan:
    return ProfilePlan("numeric", np.array(column.edges)) if isinstance(column, Numeric) else ProfilePlan("levels")


def _outside(column: Numeric | Categorical, array: pa.Array) -> int:
    """Count values beyond the least and greatest of the training data, or that it does not have."""
    if isinstance(column, Numeric):
        if not column.quantiles:
            return 0
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        # Quantiles are rounded, and requests may hold 32-bit floats.
        slack = 1e-5 * max(abs(column.quantiles[0]), abs(column.quantiles[-1]))
        with np.errstate(invalid="ignore"):
            return int(((values < column.quantiles[0] - slack) | (values > column.quantiles[-1] + slack)).sum())
    if column.others:
        return 0
    counts = array.drop_null().value_counts()
    return sum(pair["counts"].as_py() for pair in counts if category(pair["values"].as_py()) not in column.counts)


def _reference(column: Numeric | Categorical) -> ColumnProfile:
    if isinstance(column, Numeric):
        return ColumnProfile(
            "numeric",
            column.rows,
            column.nulls,
            edges=np.array(column.edges),
            bins=np.array(column.counts, dtype=np.int64),
            mean=column.mean,
            deviation=column.deviation,
        )
    levels = {**column.counts, **({OTHER_LEVELS: column.others} if column.others else {})}
    return ColumnProfile("levels", column.rows, column.nulls, levels=levels)


def _compare(
    columns: Mapping[str, Numeric | Categorical], counters: Mapping[str, ProfileCounter]
) -> tuple[ColumnComparison, ...]:
    found = []
    for name, column in columns.items():
        current = counters[name].profile()
        if isinstance(column, Categorical) and column.others:
            # The baseline counts rare levels together, so they are counted together here as well.
            levels = {level: number for level, number in current.levels.items() if level in column.counts}
            others = sum(current.levels.values()) - sum(levels.values())
            current = replace(current, levels={**levels, OTHER_LEVELS: others})
        found.append(compare_column(name, _reference(column), current))
    return tuple(found)


def judge_outside(outside: Mapping[str, tuple[int, int, int]], minimum_rows: int) -> list[MonitorFinding]:
    """Judge if too many values lie outside what the bundle was trained on.

    Args:
        outside: feature → rows outside, rows with a value, and rows of the training data with a value.
        minimum_rows: rows without which the share is unknown.

    Returns:
        A finding for each feature with such a value.
    """
    seen = {name: counts for name, counts in outside.items() if counts[0]}
    enough = {name: counts for name, counts in seen.items() if min(counts[1:]) >= minimum_rows}
    # Without a change, one of n + 1 values lies beyond the greatest of n, and one beyond the least.
    p_values = adjusted([proportion_p_value((2, of), (beyond, there), "greater") for beyond, there, of in
                         enough.values()])  # fmt: skip
    by_name = dict(zip(enough, p_values, strict=True))
    return [_outside_finding(name, counts, by_name.get(name), minimum_rows) for name, counts in seen.items()]


def _outside_finding(
    name: str, counts: tuple[int, int, int], p_value: float | None, minimum_rows: int
) -> MonitorFinding:
    beyond, there, of = counts
    if p_value is None:
        return MonitorFinding(
            check="input-quality",
            subject=f"{name}: range",
            verdict="unknown",
            rows=there,
            reason=f"{min(there, of):,} of at least {minimum_rows:,} rows with a value",
        )
    share = beyond / there
    verdict: MonitorVerdict = "ok"
    if p_value <= 0.05 and share >= OUTSIDE_DIFFERENCE:
        verdict = "alarm"
    elif p_value <= 0.05 and share >= OUTSIDE_DIFFERENCE / 2:
        verdict = "watch"
    return MonitorFinding(
        check="input-quality",
        subject=f"{name}: range",
        verdict=verdict,
        figure=100 * share,
        threshold=100 * OUTSIDE_DIFFERENCE,
        unit="%",
        p_value=p_value,
        rows=there,
        reason=f"{share:.2%} of the values are outside what the bundle was trained on",
    )
