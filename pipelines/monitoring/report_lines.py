"""A monitor's report as text."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.declarations.plurals import counted
from pipelines.monitoring.data_report import DataMonitorReport
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding, alike, figure_text, full_reason, in_order

SHOWN_SUBJECTS = 4
"""Columns that one line names, if they have the same finding."""


def report_lines(report: DataMonitorReport | ModelMonitorReport, *, every_check: bool = False) -> list[str]:
    """Return a report as lines: the verdict, then each check that is not ok.

    Args:
        report: the report.
        every_check: True to show the checks that are ok as well.
    """
    lines = _data_head(report) if isinstance(report, DataMonitorReport) else _model_head(report)
    shown = [finding for finding in in_order(report.findings) if every_check or finding.verdict != "ok"]
    lines += [_line(group) for group in alike(shown)]
    hidden = len(report.findings) - len(shown)
    if hidden:
        lines.append(f"  {hidden} {'check is' if hidden == 1 else 'checks are'} ok")
    return lines


def _line(group: Sequence[MonitorFinding]) -> str:
    first, subjects = group[0], [finding.subject for finding in group if finding.subject]
    more = f" and {len(subjects) - SHOWN_SUBJECTS} more" if len(subjects) > SHOWN_SUBJECTS else ""
    subject = f" of {', '.join(subjects[:SHOWN_SUBJECTS])}{more}" if subjects else ""
    bound = ""
    if first.verdict in ("alarm", "watch") and first.threshold is not None:
        bound = f"; alarm at {figure_text(first.threshold, first.unit)}"
    return f"  {first.verdict:<7} {first.check}{subject}: {full_reason(first)}{bound}"


def _data_head(report: DataMonitorReport) -> list[str]:
    lines = [f"{report.dataset} in {report.environment}: {report.verdict}"]
    if report.delivery is not None:
        delivery = report.delivery
        lines.append(
            f"newest delivery {delivery.committed:%Y-%m-%d %H:%M} UTC, {delivery.rows:,} rows; compared with "
            f"{delivery.reference_rows:,} rows of {counted(delivery.reference_deliveries, 'delivery')} before"
        )
    return lines


def _model_head(report: ModelMonitorReport) -> list[str]:
    lines = [f"{report.model} in {report.environment}: {report.verdict}"]
    if report.bundle is not None:
        lines.append(
            f"{report.requests:,} requests with {report.rows:,} rows, {report.window_start:%Y-%m-%d %H:%M} to "
            f"{report.window_end:%Y-%m-%d %H:%M} UTC, answered by {report.bundle}"
        )
    if report.labels is not None:
        lines.append(f"{report.labels.joined:,} of {report.labels.read:,} labels belong to these or earlier requests")
    return lines
