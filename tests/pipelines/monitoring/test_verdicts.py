"""Verdicts of the checks: what is an alarm, what is not, and what is unknown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.declarations.contract import Column
from pipelines.declarations.data_monitoring import DataMonitorSettings
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.column_drift import compare_column, judge_drift, judge_nulls
from pipelines.monitoring.column_profiles import profile_streams
from pipelines.monitoring.data_checks import (
    QualityCounts,
    judge_freshness,
    judge_open_files,
    judge_quality,
    judge_schema,
)
from pipelines.monitoring.data_report import DataMonitorReport, ExaminedDelivery
from pipelines.monitoring.deliveries import Delivery, daily_rows
from pipelines.monitoring.model_checks import judge_served_bundle
from pipelines.monitoring.monitor_findings import MonitorFinding, in_order, overall_verdict
from pipelines.monitoring.report_lines import report_lines
from pipelines.monitoring.volume import SEASON, forecast_volume, judge_volume

SETTINGS = DataMonitorSettings()
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_columns_with_the_same_finding_share_a_line() -> None:
    reason = "2 rows with a value before, expected at least 100"
    unknown = [MonitorFinding(check="drift", subject=name, verdict="unknown", reason=reason) for name in "abcdef"]
    other = MonitorFinding(check="drift", subject="g", verdict="unknown", reason="no row has a value")
    lines = report_lines(report_of(*unknown, other))
    assert lines[1:] == [
        "newest delivery 2026-03-02 05:00 UTC, 10 rows; compared with 5 rows of 1 delivery before",
        f"  unknown drift of a, b, c, d and 2 more: {reason}",
        "  unknown drift of g: no row has a value",
    ]


def report_of(*findings: MonitorFinding) -> DataMonitorReport:
    at = datetime(2026, 3, 2, 5, tzinfo=UTC)
    delivery = ExaminedDelivery(committed=at, batches=1, rows=10, reference_deliveries=1, reference_rows=5)
    facts: dict[str, Any] = {
        "dataset": "visits",
        "environment": "dev",
        "created": at,
        "contract": "1.0.0",
        "snapshot": "1",
    }
    return DataMonitorReport(**facts, verdict="unknown", delivery=delivery, findings=findings)


def finding(verdict: Any) -> MonitorFinding:
    return MonitorFinding(check="drift", verdict=verdict, reason="")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), "unknown"),
        (("ok", "ok"), "ok"),
        (("ok", "unknown"), "unknown"),
        (("unknown", "watch"), "watch"),
        (("watch", "alarm", "unknown"), "alarm"),
    ],
)
def test_the_worst_verdict_counts_and_unknown_is_never_ok(verdicts: tuple[str, ...], expected: str) -> None:
    assert overall_verdict(map(finding, verdicts)) == expected
    assert [each.verdict for each in in_order(map(finding, ("ok", "alarm", "unknown", "watch")))] == [
        "alarm",
        "watch",
        "unknown",
        "ok",
    ]


# --- drift


def compared(reference: Any, current: Any, name: str = "c", kind: str = "number") -> ColumnComparison:
    column = Column.model_validate_json(f'{{"name": "c", "logicalType": "{kind}"}}')
    streams = ([pa.record_batch({"c": pa.array(given, from_pandas=False)})] for given in (reference, current))
    old, new = profile_streams([column], *streams)
    return compare_column(name, old["c"], new["c"])


def only(findings: list[MonitorFinding]) -> MonitorFinding:
    (one,) = findings
    return one


def normal(rows: int, mean: float = 0.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(mean, 1, rows)


def test_a_large_and_significant_difference_is_an_alarm() -> None:
    found = only(judge_drift([compared(normal(5_000), normal(1_000, 0.5, seed=1))], SETTINGS))
    assert (found.verdict, found.rows) == ("alarm", 1_000)
    assert found.figure is not None and found.figure > 0.1
    assert found.p_value is not None and found.p_value < 0.001


def test_a_significant_but_negligible_difference_is_no_alarm_however_many_rows_there_are() -> None:
    found = only(judge_drift([compared(normal(200_000), normal(200_000, 0.02, seed=1))], SETTINGS))
    assert found.verdict == "ok"
    assert found.p_value is not None and found.p_value < 0.05
    assert "negligible" in found.reason


def test_a_significant_difference_of_half_the_threshold_is_to_be_watched() -> None:
    found = only(judge_drift([compared(normal(100_000), normal(100_000, 0.075, seed=1))], SETTINGS))
    assert found.verdict == "watch"


def test_a_large_difference_that_chance_explains_is_no_alarm() -> None:
    found = only(judge_drift([compared(normal(100), normal(100, 0.1, seed=3))], SETTINGS))
    assert found.figure is not None and found.figure > SETTINGS.minimum_effect
    assert found.verdict == "ok"


def test_the_more_columns_are_tested_the_more_evidence_each_needs() -> None:
    suspicious = compared(normal(2_000), normal(1_000, 0.13, seed=2))
    others = [compared(normal(2_000, seed=10 + n), normal(1_000, seed=50 + n), f"c{n}") for n in range(40)]
    assert only(judge_drift([suspicious], SETTINGS)).verdict == "alarm"
    assert judge_drift([suspicious, *others], SETTINGS)[0].verdict == "ok"


@pytest.mark.parametrize(
    ("reference", "current", "reason"),
    [
        (normal(99), normal(1_000), "99 of at least 100 rows with a value before"),
        (normal(1_000), normal(99), "99 of at least 100 rows with a value in the newest delivery"),
        (normal(1_000), pa.array([None] * 1_000, pa.float64()), "0 of at least 100"),
    ],
)
def test_too_few_values_are_unknown(reference: Any, current: Any, reason: str) -> None:
    found = only(judge_drift([compared(reference, current)], SETTINGS))
    assert (found.verdict, found.figure, found.p_value) == ("unknown", None, None)
    assert reason in found.reason


def test_a_column_that_was_never_seen_before_is_unknown() -> None:
    column = Column.model_validate_json('{"name": "c", "logicalType": "number"}')
    old, new = profile_streams([column], [], [pa.record_batch({"c": normal(1_000)})])
    found = only(judge_drift([compare_column("c", old["c"], new["c"])], SETTINGS))
    assert (found.verdict, found.reason) == ("unknown", "the column is new: no earlier delivery has it")


def test_a_release_that_no_request_reached_says_from_when_they_count() -> None:
    """The time may be ahead: pods change for some minutes after a release."""
    found = judge_served_bundle("sha256:a", datetime(2026, 11, 30, 12, 2, tzinfo=UTC), {}, {})
    assert found.verdict == "unknown"
    assert "from 2026-11-30 12:02 UTC on" in found.reason


def test_a_constant_column_that_stays_constant_is_ok_and_one_that_changes_is_an_alarm() -> None:
    assert only(judge_drift([compared([3.0] * 500, [3.0] * 300)], SETTINGS)).verdict == "ok"
    assert only(judge_drift([compared([3.0] * 500, [4.0] * 300)], SETTINGS)).verdict == "alarm"


def test_levels_that_no_earlier_delivery_has_are_counted() -> None:
    found = only(judge_drift([compared(["a", "b"] * 500, ["a", "b", "c", "a"] * 100, kind="string")], SETTINGS))
    assert found.verdict == "alarm"
    assert "25.0% have values that no earlier delivery has" in found.reason


# --- nulls


def test_more_missing_values_are_an_alarm_and_columns_without_any_are_left_out() -> None:
    some = compared([None] * 20 + [1.0] * 980, [None] * 100 + [1.0] * 900, "some")
    none = compared([1.0] * 1_000, [1.0] * 1_000, "none")
    found = only(judge_nulls([some, none], SETTINGS))
    assert (found.subject, found.verdict) == ("some", "alarm") and found.figure == pytest.approx(8)


def test_a_change_of_missing_values_below_a_percentage_point_is_no_alarm() -> None:
    before, now = [None] * 200 + [1.0] * 99_800, [None] * 900 + [1.0] * 99_100
    found = only(judge_nulls([compared(before, now)], SETTINGS))
    assert found.verdict == "ok"
    assert found.p_value is not None and found.p_value < 0.001


# --- schema, freshness, quality


def test_every_difference_of_the_schema_is_a_finding() -> None:
    declared = {"a": "long", "b": "double", "new": "int", "wrong": "double"}
    stored = {"a": "long", "b": "double", "wrong": "float", "gone": "int"}
    found = {each.subject: each.verdict for each in judge_schema(declared, stored, {"a": "long", "wrong": "float"})}
    assert found == {"b": "watch", "new": "watch", "wrong": "alarm", "gone": "watch"}
    assert only(judge_schema({"a": "long"}, {"a": "long"}, None)).verdict == "ok"


@pytest.mark.parametrize(
    ("hours", "agreed", "frequency", "verdict"),
    [
        (23, 24 * 60, None, "ok"),
        (25, 24 * 60, None, "alarm"),
        (25, 24 * 60, 60, "alarm"),
        (47, None, 24 * 60, "ok"),
        (49, None, 24 * 60, "alarm"),
        (-1, 24 * 60, None, "watch"),
    ],
)
def test_the_age_of_data_is_judged_by_the_contract(
    hours: float, agreed: float | None, frequency: float | None, verdict: str
) -> None:
    found = judge_freshness(NOW - timedelta(hours=hours), NOW, agreed, frequency)
    assert found is not None
    assert (found.verdict, found.figure) == (verdict, hours)


def test_without_a_promise_the_age_is_not_judged() -> None:
    assert judge_freshness(NOW, NOW, None, None) is None


def test_more_rows_that_break_the_contract_are_an_alarm_that_names_the_rule() -> None:
    before = QualityCounts(10_000, 50, {("age", "minimum"): 50})
    now = QualityCounts(1_000, 60, {("age", "minimum"): 4, ("name", "required"): 56})
    found = {each.subject: each for each in judge_quality(now, before, 100)}
    assert {name: each.verdict for name, each in found.items()} == {
        "": "alarm",
        "age: minimum": "ok",
        "name: required": "alarm",
    }
    assert found[""].figure == pytest.approx(6.0)


def test_fewer_rows_that_break_the_contract_are_ok() -> None:
    found = judge_quality(QualityCounts(1_000, 0), QualityCounts(1_000, 200), 100)
    assert only(found).verdict == "ok"


@pytest.mark.parametrize(("now", "before"), [(0, 1_000), (1_000, 0), (50, 1_000)])
def test_the_quality_of_few_rows_is_unknown(now: int, before: int) -> None:
    assert only(judge_quality(QualityCounts(now, 0), QualityCounts(before, 0), 100)).verdict == "unknown"


def test_rejected_files_are_to_be_watched_until_a_person_decides() -> None:
    assert judge_open_files([], "fix") == []
    found = only(judge_open_files(["a", "b", "c", "d"], "mlops data list"))
    assert (found.verdict, found.figure) == ("watch", 4)
    assert "a, b, c and 1 more" in found.reason


# --- volume


def weekly(weeks: int, seed: int = 0, weekend: float = 0.3) -> list[int]:
    rng = np.random.default_rng(seed)
    shape = [1, 1, 1, 1, 1, weekend, weekend] * weeks
    return [int(10_000 * share * np.exp(rng.normal(0, 0.05))) for share in shape]


def test_the_season_is_part_of_what_is_expected() -> None:
    history = weekly(10)
    saturday = forecast_volume(history[:-2], seasonal=True)
    monday = forecast_volume(history, seasonal=True)
    assert saturday is not None and monday is not None
    assert saturday.rows == pytest.approx(3_000, rel=0.1)
    assert monday.rows == pytest.approx(10_000, rel=0.1)
    assert judge_volume(3_000, history[:-2], seasonal=True).verdict == "ok"
    assert judge_volume(3_000, history, seasonal=True).verdict == "alarm"


def test_a_day_without_a_delivery_is_skipped_and_not_counted_as_zero() -> None:
    history: list[int | None] = [*weekly(8)]
    for index in range(5, len(history), SEASON):
        history[index] = None
    found = forecast_volume(history, seasonal=True)
    assert found is not None and found.rows == pytest.approx(10_000, rel=0.1)
    # A first delivery on a day of the week that never had one
    assert judge_volume(10, history[:-2], seasonal=True).verdict == "unknown"


def test_one_odd_day_does_not_spoil_the_forecasts_after_it() -> None:
    history = weekly(10)
    history[-10] = 100
    assert judge_volume(10_000, history, seasonal=True).verdict == "ok"


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_delivery_is_an_alarm(rows: int) -> None:
    found = judge_volume(rows, weekly(10), seasonal=True)
    assert found.verdict == "alarm"
    assert found.threshold is not None and found.threshold > 1_000


def test_a_small_change_is_no_alarm_however_regular_the_past_was() -> None:
    assert judge_volume(1_100, [1_000] * 40, seasonal=False).verdict == "ok"
    assert judge_volume(1_300, [1_000] * 40, seasonal=False).verdict == "alarm"


def test_a_short_history_is_unknown() -> None:
    found = judge_volume(10, [10] * 7, seasonal=True)
    assert (found.verdict, found.reason) == ("unknown", "7 of at least 8 earlier days with rows")
    assert judge_volume(10, [10] * 8, seasonal=True).verdict == "ok"


def test_rows_are_added_up_by_day_and_days_between_have_none() -> None:
    def on(day: int, rows: int) -> Delivery:
        return Delivery((day,), (), datetime(2026, 3, day, 5, tzinfo=UTC), rows, {})

    assert daily_rows([on(1, 10), on(1, 5), on(4, 7)], date(2026, 3, 5)) == [15, None, None, 7, None]
    assert daily_rows([], date(2026, 3, 5)) == []
