"""Checks of a delivery other than drift and volume: schema, freshness and quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.data.row_balance import RowBalance
from pipelines.monitoring.drift_tests import adjusted, proportion_p_value
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict

FALSE_POSITIVES = 0.05

QUALITY_DIFFERENCE = 0.01
"""Least increase of the share of quarantined rows that is an alarm."""

SHOWN_PROBLEMS = 3
"""Rows that do not add up: number of files that a reason names."""

MISSED_DELIVERIES = 2
"""Without an agreed freshness, deliveries that may be late before the age of the data is an alarm."""


@dataclass(frozen=True)
class QualityCounts:
    """Rows that were checked when they were ingested.

    Attributes:
        rows: rows in the landing files.
        quarantined: rows that break the contract.
        broken: (column, rule) → rows that break the rule.
    """

    rows: int = 0
    quarantined: int = 0
    broken: Mapping[tuple[str, str], int] = field(default_factory=dict)


def judge_schema(
    declared: Mapping[str, str], stored: Mapping[str, str], before: Mapping[str, str] | None
) -> list[MonitorFinding]:
    """Judge the columns of a table against its contract and against the delivery before.

    Args:
        declared: column → type, in the contract.
        stored: column → type, in the newest delivery.
        before: column → type, in the delivery before it; None if there is none.

    Returns:
        A finding for each difference; one finding for the table if there is none.
    """
    found = []

    def add(column: str, verdict: MonitorVerdict, reason: str) -> None:
        found.append(MonitorFinding(check="schema", subject=column, verdict=verdict, reason=reason))

    for column, type_ in declared.items():
        if column not in stored:
            add(column, "watch", "is in the contract, but not in the newest delivery; the next one adds it")
        elif stored[column] != type_:
            add(column, "alarm", f"is stored as {stored[column]}: the contract says {type_}")
        elif before is not None and column not in before:
            add(column, "watch", "is new in this delivery")
    for column in stored:
        if column not in declared:
            add(column, "watch", "is in the table, but not in the contract")
    return found or [MonitorFinding(check="schema", verdict="ok", reason=f"{len(stored)} columns, as in the contract")]


def judge_freshness(
    newest: datetime, now: datetime, agreed_minutes: float | None, frequency_minutes: float | None
) -> MonitorFinding | None:
    """Judge the age of the newest delivery.

    Args:
        newest: when it was committed.
        now: the present time.
        agreed_minutes: greatest age that the contract allows; None if it says nothing.
        frequency_minutes: time between two deliveries; None if the contract gives none.

    Returns:
        The finding; None if the contract says neither how old data may be nor how often it arrives.
    """
    age = (now - newest).total_seconds() / 3600
    if agreed_minutes is not None:
        limit, source = agreed_minutes / 60, "the contract allows"
    elif frequency_minutes is not None:
        limit, source = MISSED_DELIVERIES * frequency_minutes / 60, f"{MISSED_DELIVERIES} deliveries take"
    else:
        return None
    if age < 0:
        verdict: MonitorVerdict = "watch"
        reason = f"the newest delivery is {-age:.1f} hours in the future: clocks differ"
    else:
        verdict = "alarm" if age > limit else "ok"
        reason = f"the newest delivery is {age:.1f} hours old; {source} {limit:g}"
    return MonitorFinding(check="freshness", verdict=verdict, figure=age, threshold=limit, unit="hours", reason=reason)


def judge_rows(balance: RowBalance) -> MonitorFinding:
    """Judge if every row that ever landed is in the table or in quarantine, exactly once."""
    problems = balance.problems
    reason = (
        f"{balance.landed:,} landed = {balance.appended:,} appended + {balance.quarantined:,} quarantined, "
        "over the life of the table"
    )
    if problems:
        more = f" (and {len(problems) - SHOWN_PROBLEMS} more)" if len(problems) > SHOWN_PROBLEMS else ""
        reason = "; ".join(problems[:SHOWN_PROBLEMS]) + more
    verdict: MonitorVerdict = "alarm" if problems else "ok"
    return MonitorFinding(
        check="rows",
        verdict=verdict,
        figure=float(len(problems)),
        threshold=1.0,
        unit="problems",
        rows=balance.landed,
        reason=reason,
    )


def judge_quality(current: QualityCounts, reference: QualityCounts, minimum_rows: int) -> list[MonitorFinding]:
    """Judge if more rows break the contract than before: in all, and for each rule that a row breaks now."""
    least = min(current.rows, reference.rows)
    if least < minimum_rows:
        where = "before" if reference.rows < current.rows else "in the newest delivery"
        return [
            MonitorFinding(
                check="quality",
                verdict="unknown",
                figure=100 * current.quarantined / current.rows if current.rows else None,
                unit="%",
                rows=current.rows,
                reason=f"{least:,} of at least {minimum_rows:,} checked rows {where}",
            )
        ]
    rules = [("", current.quarantined, reference.quarantined)]
    rules += [
        (f"{column or 'row'}: {rule}", count, reference.broken.get((column, rule), 0))
        for (column, rule), count in current.broken.items()
    ]
    p_values = adjusted(
        [proportion_p_value((old, reference.rows), (new, current.rows), "greater") for _, new, old in rules]
    )
    return [
        _quality_finding(subject, new / current.rows, old / reference.rows, p_value, current.rows)
        for (subject, new, old), p_value in zip(rules, p_values, strict=True)
    ]


def _quality_finding(subject: str, now: float, before: float, p_value: float, rows: int) -> MonitorFinding:
    significant, increase = p_value <= FALSE_POSITIVES, now - before
    verdict: MonitorVerdict = "ok"
    if significant and increase >= QUALITY_DIFFERENCE:
        verdict = "alarm"
    elif significant and increase >= QUALITY_DIFFERENCE / 2:
        verdict = "watch"
    return MonitorFinding(
        check="quality",
        subject=subject,
        verdict=verdict,
        figure=100 * now,
        threshold=100 * (before + QUALITY_DIFFERENCE),
        unit="%",
        p_value=p_value,
        rows=rows,
        reason=f"{now:.2%} of the rows break {'this rule' if subject else 'the contract'}; before, {before:.2%}",
    )


def judge_open_files(files: Sequence[str], fix: str) -> list[MonitorFinding]:
    """Report landing files that were rejected and wait for a decision.

    Args:
        files: names of the files.
        fix: the command that lists them.
    """
    if not files:
        return []
    named = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return [
        MonitorFinding(
            check="quality",
            subject="landing files",
            verdict="watch",
            figure=float(len(files)),
            threshold=None,
            unit="files",
            reason=f"rejected, and nobody has decided: {named} ({fix})",
        )
    ]
