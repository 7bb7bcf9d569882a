"""Findings of a monitor, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.model_monitoring import ModelCheck

MonitorVerdict = Literal["ok", "watch", "alarm", "unknown"]
"""`ok`; `watch`: look at it; `alarm`: something must happen; `unknown`: too little data to decide."""

DataCheck = Literal["schema", "freshness", "volume", "rows", "quality", "nulls", "drift"]
"""What the monitor of a dataset checks."""

CheckKind = DataCheck | ModelCheck

Figure = Annotated[float, Field(allow_inf_nan=False)]

_ORDER: tuple[MonitorVerdict, ...] = ("alarm", "watch", "unknown", "ok")


class MonitorFinding(Declaration):
    """Result of one check.

    Attributes:
        check: what was checked.
        subject: the column, the rule, the metric or the groups; "" for the whole dataset or model.
        verdict: the verdict.
        figure: what was measured; None if nothing could be.
        threshold: the figure from which the verdict is `alarm`; None if there is none.
        unit: unit of the figure and the threshold, such as `%`, `hours` or `rows`; "" for a share.
        p_value: probability of a figure at least as extreme without a change, adjusted for the number of tests;
            None without a test.
        rows: sample size: rows of the newest delivery, or of the window, that the check looked at.
        reason: the finding in one sentence, without values of the data: alarms, issues and commits quote it.
        groups: what was found in which group of people; only reports show it.
    """

    check: CheckKind
    subject: str = ""
    verdict: MonitorVerdict
    figure: Figure | None = None
    threshold: Figure | None = None
    unit: str = ""
    p_value: Annotated[float, Field(ge=0, le=1)] | None = None
    rows: Annotated[int, Field(ge=0)] = 0
    reason: str
    groups: str = ""


def overall_verdict(findings: Iterable[MonitorFinding]) -> MonitorVerdict:
    """Return the verdict over all findings: the worst one.

    `unknown` is worse than `ok`: a monitor that could not look never says that all is well. Without findings, nothing
    is known.
    """
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in _ORDER if verdict in found), "unknown")


def alarming_checks(findings: Iterable[MonitorFinding]) -> tuple[CheckKind, ...]:
    """Return the checks that are an alarm, each once, in the order of their findings."""
    return tuple(dict.fromkeys(finding.check for finding in findings if finding.verdict == "alarm"))


def count_verdict(findings: Iterable[MonitorFinding], verdict: MonitorVerdict) -> int:
    """Return the number of findings with a verdict."""
    return sum(1 for finding in findings if finding.verdict == verdict)


def in_order(findings: Iterable[MonitorFinding]) -> list[MonitorFinding]:
    """Return findings with the worst first, and otherwise in their order."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.verdict))


def alike(findings: Sequence[MonitorFinding]) -> list[list[MonitorFinding]]:
    """Group findings that differ in their subject only, in the order of the first of each."""
    groups: dict[tuple[str, str, str, str], list[MonitorFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.verdict, finding.check, finding.reason, finding.groups), []).append(finding)
    return list(groups.values())


def in_rows(findings: Iterable[MonitorFinding]) -> list[list[MonitorFinding]]:
    """Return findings as rows of a table, in order: unknown ones that say the same share a row."""
    rows = [[each] for each in findings if each.verdict != "unknown"]
    return rows + alike([each for each in findings if each.verdict == "unknown"])


def finding_name(finding: MonitorFinding) -> str:
    """Return what a finding is about: the check, and its subject if it has one."""
    return f"{finding.check} of {finding.subject}" if finding.subject else finding.check


def figure_text(value: float | None, unit: str) -> str:
    """Return a figure with its unit; "" if there is none."""
    if value is None:
        return ""
    if not unit:
        return f"{value:.1%}"
    number = f"{value:,.0f}" if unit in ("rows", "files") else f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{number} {unit}"


def full_reason(finding: MonitorFinding) -> str:
    """Return the reason of a finding with what was found in which group, for those who may read reports."""
    return f"{finding.reason} ({finding.groups})" if finding.groups else finding.reason
