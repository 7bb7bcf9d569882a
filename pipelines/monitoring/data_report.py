"""Report of one run of a dataset's monitor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.timestamps import Timestamp
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.monitor_findings import MonitorFinding, MonitorVerdict

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

    committed: Timestamp
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
    created: Timestamp
    snapshot: str | None
    verdict: MonitorVerdict
    delivery: ExaminedDelivery | None = None
    findings: tuple[MonitorFinding, ...]
    columns: tuple[ColumnComparison, ...] = ()
    volumes: tuple[VolumePoint, ...] = ()
    expected_low: float | None = None
    expected_high: float | None = None
    skipped: dict[str, str] = Field(default_factory=dict)
