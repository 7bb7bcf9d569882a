"""A report about a model as Markdown, for an issue on GitHub.

Without distributions and without figures of groups of people: more people can read issues than the bucket of reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.declarations.markdown import escape, short_digest, table
from pipelines.declarations.plurals import counted
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding, figure_text, finding_name, in_order, in_rows

MOST_CHANGES = 40
"""Changed verdicts that are listed."""

SHOWN_SUBJECTS = 8
"""Subjects of one row, if they have the same finding."""

_FOLD = 200
"""Bytes of what surrounds a folded table and says how many findings were left out."""

_TABLE_HEAD = 2
"""Lines before the first row of a table."""

_HEAD = ("verdict", "check", "of", "figure", "alarm at", "rows", "reason")


def report_markdown(report: ModelMonitorReport, before: ModelMonitorReport | None, longest: int) -> str:
    """Return a report: its facts, what changed, and all findings, the worst first.

    Args:
        report: the report.
        before: the report before it; None if there is none.
        longest: size limit in bytes. Findings that do not fit are counted.
    """
    ordered = in_order(report.findings)
    passed = [finding for finding in ordered if finding.verdict == "ok"]
    shown = ordered[: len(ordered) - len(passed)]
    head = [*_facts(report), "", *_changes(report, before), ""]
    room = longest - _size(head) - _FOLD
    open_table = _findings(shown, room) if shown else []
    folded = []
    if passed:
        summary = f"{counted(len(passed), 'check')} {'is' if len(passed) == 1 else 'are'} ok"
        folded = [f"<details><summary>{summary}</summary>", ""]
        folded += [*_findings(passed, room - _size(open_table) - _FOLD), "", "</details>"]
    return "\n".join([*head, *open_table, "", *folded]).rstrip() + "\n"


def _facts(report: ModelMonitorReport) -> list[str]:
    lines = [
        f"#### Report of {report.time:%Y-%m-%d %H:%M} UTC: {report.verdict}",
        "",
        f"- requests from {report.window_start:%Y-%m-%d %H:%M} to {report.window_end:%Y-%m-%d %H:%M} UTC: "
        f"{report.requests:,}, with {counted(report.rows, 'row')}",
        f"- live bundle: `{short_digest(report.bundle)}`",
    ]
    if report.trial is not None:
        lines.append(f"- bundle on trial: `{short_digest(report.trial)}`")
    if report.sample < 1:
        lines.append(f"- logged sample: {report.sample:.1%} of the requests")
    if report.labels is not None:
        lines.append(
            f"- labels: {report.labels.joined:,} of {report.labels.read:,} belong to these or earlier requests"
        )
    return lines


def _changes(report: ModelMonitorReport, before: ModelMonitorReport | None) -> list[str]:
    """List the verdicts that differ from those of the report before, the worst first."""
    if before is None:
        return ["There is no earlier report to compare with."]
    since = f"since the report of {before.time:%Y-%m-%d %H:%M} UTC"
    lines = []
    if before.bundle != report.bundle:
        lines.append(f"- the live bundle was `{short_digest(before.bundle)}`")
    was, now = _by_name(before.findings), _by_name(report.findings)
    for key, finding in now.items():
        earlier = was.get(key)
        if earlier is None or earlier.verdict != finding.verdict:
            lines.append(f"- {escape(finding_name(finding))}: {_short(earlier)} → {_short(finding)}")
    lines += [
        f"- {escape(finding_name(one))}: {_short(one)} → not checked" for key, one in was.items() if key not in now
    ]
    if not lines:
        return [f"No verdict changed {since}."]
    more = len(lines) - MOST_CHANGES
    return [f"Changes {since}:", "", *lines[:MOST_CHANGES], *([f"- … and {more:,} more"] if more > 0 else [])]


def _by_name(findings: Iterable[MonitorFinding]) -> dict[tuple[str, str], MonitorFinding]:
    """Return check and subject → finding, the worst one of those with the same name, in order."""
    found: dict[tuple[str, str], MonitorFinding] = {}
    for one in in_order(findings):
        found.setdefault((one.check, one.subject), one)
    return found


def _short(finding: MonitorFinding | None) -> str:
    if finding is None:
        return "not checked"
    figure = escape(figure_text(finding.figure, finding.unit))
    return f"{finding.verdict} ({figure})" if figure else finding.verdict


def _findings(findings: Sequence[MonitorFinding], longest: int) -> list[str]:
    """Return the lines of a table with as many findings as fit."""
    rows = in_rows(findings)
    lines = table(_HEAD, (_row(row) for row in rows))
    fitting, size = 0, 0
    for line in lines:
        size += _size([line])
        if size > longest:
            break
        fitting += 1
    fitting = fitting if fitting > _TABLE_HEAD else 0
    left = sum(len(row) for row in rows[max(fitting - _TABLE_HEAD, 0) :])
    return [*lines[:fitting], *(["", f"… and {left:,} more, in the full report"] if left else [])]


def _row(group: Sequence[MonitorFinding]) -> Sequence[str]:
    first, subjects = group[0], [one.subject for one in group if one.subject]
    more = f" and {len(subjects) - SHOWN_SUBJECTS} more" if len(subjects) > SHOWN_SUBJECTS else ""
    return (
        first.verdict,
        first.check,
        ", ".join(subjects[:SHOWN_SUBJECTS]) + more,
        figure_text(first.figure, first.unit),
        figure_text(first.threshold, first.unit),
        f"{first.rows:,}" if first.rows else "",
        first.reason,
    )


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)
