"""Drift of columns: compare the profiles of two streams and decide.

Two keys are needed for an alarm: the difference is significant after control of the false discovery rate over all
columns, and its effect is not small. With many rows, every difference is significant; with few, any can be large.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.declarations.printable import printable
from pipelines.monitoring.column_comparison import ColumnComparison, ShareBar
from pipelines.monitoring.column_profiles import merged_bins
from pipelines.monitoring.drift_tests import (
    adjusted,
    chi_square,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability_index,
    proportion_p_value,
    rank_sum,
    total_variation,
)
from pipelines.monitoring.monitor_findings import CheckKind, MonitorFinding, MonitorVerdict
from pipelines.monitoring.profile_counter import ColumnProfile

FALSE_DISCOVERY_RATE = 0.04
"""Less than the 5 % of windows without a change that may raise an alarm: p-values are asymptotic."""

GROUPS = 10
"""Groups with equal shares of the reference over which the effect on a numeric column is measured."""

MOST_SHOWN_LEVELS = 12

NULLS_DIFFERENCE = 0.01
"""Least difference of the share of nulls that is an alarm."""


class DriftBounds(Protocol):
    """What decides about drift; see `DataMonitorSettings`."""

    @property
    def minimum_rows(self) -> int:
        """Rows with a value without which drift is unknown."""

    @property
    def minimum_effect(self) -> float:
        """Least share of moved rows that is an alarm."""


@dataclass(frozen=True)
class Sides:
    """What is compared, in words.

    Attributes:
        drift, nulls: kinds of the findings.
        missing: reason if the reference lacks a column.
        current, reference: where the rows of each side are.
        unseen: what no value of the reference is in.
        before: introduces the figure of the reference.
    """

    drift: CheckKind = "drift"
    nulls: CheckKind = "nulls"
    missing: str = "the column is new: no earlier delivery has it"
    current: str = "in the newest delivery"
    reference: str = "before"
    unseen: str = "no earlier delivery has"
    before: str = "before"


DELIVERIES = Sides()
FIRST_DELIVERY = Sides(missing="this is the first delivery")


def compare_column(column: str, reference: ColumnProfile, current: ColumnProfile) -> ColumnComparison:
    """Compare the distribution of a column in two streams that were profiled over the same bins."""
    facts: dict[str, Any] = {
        "column": column,
        "kind": reference.kind,
        "reference_rows": reference.rows,
        "current_rows": current.rows,
        "reference_nulls": reference.nulls,
        "current_nulls": current.nulls,
        "reference_mean": reference.mean,
        "current_mean": current.mean,
        "reference_deviation": reference.deviation,
        "current_deviation": current.deviation,
    }
    if not reference.values or not current.values:
        return ColumnComparison(**facts)
    if reference.kind == "levels":
        return ColumnComparison(**facts, **_compare_levels(reference.levels, current.levels))
    return ColumnComparison(**facts, **_compare_bins(reference, current))


def _compare_levels(reference: Mapping[str, int], current: Mapping[str, int]) -> dict[str, Any]:
    names = sorted({*reference, *current}, key=lambda name: (-reference.get(name, 0), -current.get(name, 0), name))
    old = np.array([reference.get(name, 0) for name in names], dtype=np.int64)
    new = np.array([current.get(name, 0) for name in names], dtype=np.int64)
    _, p_value, _ = chi_square(old, new, ordered=False)
    shown = names if len(names) <= MOST_SHOWN_LEVELS else names[: MOST_SHOWN_LEVELS - 1]
    bars = [_bar(name, reference.get(name, 0), old, current.get(name, 0), new) for name in shown]
    if len(shown) < len(names):
        rest = slice(len(shown), None)
        bars.append(_bar(f"{len(names) - len(shown)} others", int(old[rest].sum()), old, int(new[rest].sum()), new))
    unseen = sum(count for name, count in current.items() if name not in reference) / new.sum()
    return {**_effects(old, new), "p_value": p_value, "unseen": float(unseen), "bars": tuple(bars)}


def _compare_bins(reference: ColumnProfile, current: ColumnProfile) -> dict[str, Any]:
    distance, by_distance = kolmogorov_smirnov(reference.bins, current.bins)
    edges, old, new = merged_bins(reference, current, GROUPS)
    _, by_groups, _ = chi_square(old, new, ordered=True)
    by_ranks = rank_sum(reference.bins, current.bins)
    bars = tuple(_bar(label, a, old, b, new) for label, a, b in zip(_labels(edges), old, new, strict=True))
    return {
        **_effects(old, new),
        "ks_distance": distance,
        "p_value": min(1.0, 3 * min(by_distance, by_groups, by_ranks)),  # Bonferroni over the three tests
        "bars": bars,
    }


def _effects(old: Any, new: Any) -> dict[str, float]:
    return {
        "effect": total_variation(old, new),
        "psi": population_stability_index(old, new),
        "jensen_shannon": jensen_shannon(old, new),
    }


def _bar(label: str, reference: int, all_reference: Any, current: int, all_current: Any) -> ShareBar:
    return ShareBar(
        label=printable(label),
        reference=float(reference / all_reference.sum()),
        current=float(current / all_current.sum()),
    )


def _labels(edges: Any) -> list[str]:
    texts = [f"{edge:.4g}" for edge in edges]
    if not texts:
        return ["all"]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} or more"]


def without_rare(comparison: ColumnComparison, minimum_rows: int) -> ColumnComparison:
    """Leave out the distribution of few rows: it would show single values."""
    if min(comparison.reference_values, comparison.current_values) >= minimum_rows:
        return comparison
    return comparison.model_copy(update={"bars": ()})


def judge_drift(
    comparisons: Sequence[ColumnComparison], settings: DriftBounds, sides: Sides = DELIVERIES
) -> list[MonitorFinding]:
    """Judge the drift of columns, all together."""
    tested = [one for one in comparisons if one.p_value is not None and not _too_few(one, settings, sides)]
    p_values = adjusted([one.p_value for one in tested if one.p_value is not None])
    by_column = dict(zip((one.column for one in tested), p_values, strict=True))
    return [_drift_finding(one, by_column.get(one.column), settings, sides) for one in comparisons]


def _too_few(comparison: ColumnComparison, settings: DriftBounds, sides: Sides) -> str:
    least = settings.minimum_rows
    if comparison.reference_rows == 0:
        return sides.missing
    if comparison.current_values < least:
        return f"{comparison.current_values:,} of at least {least:,} rows with a value {sides.current}"
    if comparison.reference_values < least:
        return f"{comparison.reference_values:,} of at least {least:,} rows with a value {sides.reference}"
    return ""


def _drift_finding(
    comparison: ColumnComparison, p_value: float | None, settings: DriftBounds, sides: Sides
) -> MonitorFinding:
    facts: dict[str, Any] = {"check": sides.drift, "subject": comparison.column, "rows": comparison.current_values}
    if p_value is None:
        return MonitorFinding(**facts, verdict="unknown", reason=_too_few(comparison, settings, sides))
    effect, floor = comparison.effect, settings.minimum_effect
    significant = p_value <= FALSE_DISCOVERY_RATE
    what = {"numeric": "values", "length": "text lengths", "levels": "values"}[comparison.kind]
    verdict: MonitorVerdict = "ok"
    reason = f"{effect:.1%} of the {what} moved"
    if significant and effect >= floor:
        verdict = "alarm"
        reason += "; chance does not explain that"
    elif significant and effect >= floor / 2:
        verdict = "watch"
        reason += f": significant, but less than {floor:.1%}"
    elif significant:
        reason += ": significant, but negligible"
    else:
        reason += "; chance explains that"
    if comparison.unseen:
        reason += f"; {comparison.unseen:.1%} have values that {sides.unseen}"
    return MonitorFinding(**facts, verdict=verdict, figure=effect, threshold=floor, p_value=p_value, reason=reason)


def judge_nulls(
    comparisons: Sequence[ColumnComparison], settings: DriftBounds, sides: Sides = DELIVERIES
) -> list[MonitorFinding]:
    """Judge if the shares of nulls changed, all columns together. Columns that never have nulls are left out."""
    seen = [one for one in comparisons if one.reference_rows and (one.reference_nulls or one.current_nulls)]
    enough = [one for one in seen if min(one.reference_rows, one.current_rows) >= settings.minimum_rows]
    p_values = adjusted(
        [
            proportion_p_value(
                (one.reference_nulls, one.reference_rows), (one.current_nulls, one.current_rows), "two-sided"
            )
            for one in enough
        ]
    )
    by_column = dict(zip((one.column for one in enough), p_values, strict=True))
    return [_nulls_finding(one, by_column.get(one.column), settings, sides) for one in seen]


def _nulls_finding(
    comparison: ColumnComparison, p_value: float | None, settings: DriftBounds, sides: Sides
) -> MonitorFinding:
    facts: dict[str, Any] = {"check": sides.nulls, "subject": comparison.column, "rows": comparison.current_rows}
    if p_value is None:
        least = min(comparison.reference_rows, comparison.current_rows)
        reason = f"{least:,} of at least {settings.minimum_rows:,} rows"
        return MonitorFinding(**facts, verdict="unknown", reason=reason)
    before = comparison.reference_nulls / comparison.reference_rows
    now = comparison.current_nulls / comparison.current_rows
    changed = p_value <= FALSE_DISCOVERY_RATE and abs(now - before) >= NULLS_DIFFERENCE
    return MonitorFinding(
        **facts,
        verdict="alarm" if changed else "ok",
        figure=100 * (now - before),
        threshold=100 * NULLS_DIFFERENCE,
        unit="pp",
        p_value=p_value,
        reason=f"{now:.1%} of the rows have no value; {sides.before}, {before:.1%}",
    )
