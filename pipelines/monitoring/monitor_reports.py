"""Reports of monitors in the logs bucket: `monitoring/data/<dataset>/<time>-<snapshot>.json`, with a page beside each.

The JSON is written last, once, and never replaced: a report without it does not count. A killed run leaves a page that
nothing refers to.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipelines.data.glue_client import s3
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.column_drift import ColumnComparison
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict
from pipelines.registry import store

LARGEST_REPORT = 8 << 20
"""Size limit of a report, in bytes."""

Count = Annotated[int, Field(ge=0)]


class VolumePoint(Declaration):
    """Rows of one period.

    Attributes:
        label: the day, or the time of the delivery.
        rows: number of rows; None for a day without a delivery.
    """

    label: str
    rows: Count | None


class ExaminedDelivery(Declaration):
    """The delivery that a report is about.

    Attributes:
        committed: when its last batch was committed.
        batches: number of landing files.
        rows: rows that it added.
        reference_deliveries, reference_rows: what it was compared with.
    """

    committed: AwareDatetime
    batches: Count
    rows: Count
    reference_deliveries: Count
    reference_rows: Count


class DataMonitorReport(Declaration):
    """Report of one run of a dataset's monitor.

    Attributes:
        environment, dataset: what was monitored.
        contract: version of the contract.
        created: when the run started.
        snapshot: Iceberg snapshot that it read; None for a table without rows.
        verdict: the worst verdict of the findings.
        delivery: the newest delivery; None if there is none.
        findings: result of each check.
        columns: comparison of each column.
        volumes: rows of the last periods, the oldest first.
        expected_low, expected_high: rows between which the newest period is not an alarm; None if unknown.
        skipped: column → why its distribution was not compared.
    """

    format: Literal["mlops/data-monitor/v1"] = "mlops/data-monitor/v1"
    environment: str
    dataset: str
    contract: str
    created: AwareDatetime
    snapshot: str | None
    verdict: MonitorVerdict
    delivery: ExaminedDelivery | None = None
    findings: tuple[MonitorFinding, ...]
    columns: tuple[ColumnComparison, ...] = ()
    volumes: tuple[VolumePoint, ...] = ()
    expected_low: float | None = None
    expected_high: float | None = None
    skipped: dict[str, str] = Field(default_factory=dict)

    def count(self, verdict: MonitorVerdict) -> int:
        """Return the number of findings with a verdict."""
        return sum(1 for finding in self.findings if finding.verdict == verdict)


def report_prefix(dataset: str) -> str:
    """Return the key prefix of a dataset's reports."""
    return f"monitoring/data/{dataset}/"


def report_name(created: datetime, snapshot: str | None) -> str:
    """Return the name of a report. Names sort by time."""
    return f"{created:%Y%m%dT%H%M%SZ}-{snapshot or 'empty'}"


def write_report(descriptor: EnvironmentDescriptor, report: DataMonitorReport, page: bytes) -> str:
    """Write a report and its page; return the report's name.

    Two runs that read the same snapshot in the same second write the same report once.
    """
    name = report_name(report.created, report.snapshot)
    key, client = report_prefix(report.dataset) + name, s3(descriptor)
    content = (json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()
    store.put(descriptor.logs_bucket, f"{key}.html", page, content_type="text/html; charset=utf-8", client=client)
    with suppress(store.PreconditionFailedError):
        store.put_new(descriptor.logs_bucket, f"{key}.json", content, client=client)
    return name


def report_names(descriptor: EnvironmentDescriptor, dataset: str) -> list[str]:
    """Return the names of a dataset's reports, the newest first.

    Raises:
        AccessDeniedError: the caller may not list them.
    """
    prefix = report_prefix(dataset)
    keys = [listed.key for listed in store.listing(descriptor.logs_bucket, prefix, client=s3(descriptor))]
    return sorted(
        (key.removeprefix(prefix).removesuffix(".json") for key in keys if key.endswith(".json")), reverse=True
    )


def find_report(descriptor: EnvironmentDescriptor, dataset: str, name: str = "") -> str:
    """Return the name of a report: the newest, or the one that starts with `name`.

    Raises:
        MlopsError: there is no such report, or `name` fits several.
    """
    names = report_names(descriptor, dataset)
    fitting = [each for each in names if each.startswith(name)]
    if not names:
        raise MlopsError(
            f"{dataset} has no monitor report in {descriptor.name}",
            fix=f"mlops monitor run {dataset} --env {descriptor.name}",
        )
    if not fitting or (name and len(fitting) > 1 and name not in fitting):
        found = ", ".join(fitting[:5] or names[:5])
        raise MlopsError(f"expected the name of one report of {dataset}, found {name!r}", fix=f"use one of: {found}")
    return name if name in fitting else fitting[0]


def read_report(descriptor: EnvironmentDescriptor, dataset: str, name: str) -> DataMonitorReport:
    """Read a report.

    Raises:
        NotFoundError, AccessDeniedError: it cannot be read.
        MlopsError: it is not valid.
    """
    key = f"{report_prefix(dataset)}{name}.json"
    found = store.get(descriptor.logs_bucket, key, limit=LARGEST_REPORT, client=s3(descriptor))
    try:
        return DataMonitorReport.model_validate_json(found.content)
    except ValidationError as error:
        raise MlopsError(
            f"s3://{descriptor.logs_bucket}/{key} is not a monitor report: {error.errors()[0]['msg']}",
            fix=f"run the monitor again: mlops monitor run {dataset} --env {descriptor.name}",
        ) from None


def read_page(descriptor: EnvironmentDescriptor, dataset: str, name: str) -> bytes:
    """Read the page of a report.

    Raises:
        NotFoundError, AccessDeniedError: it cannot be read.
    """
    key = f"{report_prefix(dataset)}{name}.html"
    return store.get(descriptor.logs_bucket, key, limit=LARGEST_REPORT, client=s3(descriptor)).content
