"""OpenLineage events of monitors and of the compaction: what a run read, what it found, and where it wrote that."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from pipelines.data.lineage import Assertion, Data
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.monitoring.monitor_findings import MonitorFinding
from pipelines.monitoring.monitor_reports import ReportKind, report_prefix


def log_data(descriptor: EnvironmentDescriptor, model: str, **facts: Any) -> Data:
    """Describe the inference log of a model; `facts` are further attributes of `Data`."""
    return Data(f"s3://{descriptor.logs_bucket}", f"inference/{model}", **facts)


def report_data(
    descriptor: EnvironmentDescriptor, about: str, kind: ReportKind = "data", name: str | None = None
) -> Data:
    """Describe the reports about a dataset or a model; `name` is the one that was written."""
    return Data(f"s3://{descriptor.logs_bucket}", report_prefix(about, kind).rstrip("/"), version=name)


def assertions_of(findings: Iterable[MonitorFinding], columns: Collection[str]) -> list[Assertion]:
    """Return an assertion for each check of each column: it fails if the check is an alarm.

    What is unknown asserts nothing. Subjects other than columns are left out, because they may name groups of people.

    Args:
        findings: findings of a report.
        columns: names of the columns.
    """
    kept: dict[tuple[str, str | None], bool] = {}
    for finding in findings:
        if finding.verdict != "unknown":
            about = (finding.check, finding.subject if finding.subject in columns else None)
            kept[about] = kept.get(about, True) and finding.verdict != "alarm"
    return [Assertion(check, column, fine) for (check, column), fine in kept.items()]
