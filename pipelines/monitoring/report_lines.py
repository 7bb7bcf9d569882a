"""A monitor's report as text."""

from __future__ import annotations

from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import in_order
from pipelines.monitoring.monitor_reports import DataMonitorReport


def report_lines(report: DataMonitorReport | ModelMonitorReport, *, every_check: bool = False) -> list[str]:
    """Return a report as lines: the verdict, then each check that is not ok.

    Args:
        report: the report.
        every_check: True to show the checks that are ok as well.
    """
    lines = _data_head(report) if isinstance(report, DataMonitorReport) else _model_head(report)
    shown = [finding for finding in in_order(report.findings) if every_check or finding.verdict != "ok"]
    for finding in shown:
        subject = f" of {finding.subject}" if finding.subject else ""
        lines.append(f"  {finding.verdict:<7} {finding.check}{subject}: {finding.reason}")
    hidden = len(report.findings) - len(shown)
    if hidden:
        lines.append(f"  {hidden} {'check is' if hidden == 1 else 'checks are'} ok")
    return lines


def _data_head(report: DataMonitorReport) -> list[str]:
    lines = [f"{report.dataset} in {report.environment}: {report.verdict}"]
    if report.delivery is not None:
        delivery = report.delivery
        lines.append(
            f"newest delivery {delivery.committed:%Y-%m-%d %H:%M} UTC, {delivery.rows:,} rows; compared with "
            f"{delivery.reference_rows:,} rows of {delivery.reference_deliveries} deliveries before"
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
