"""Settings of a dataset's monitor (the custom property `monitoring`), and when its table is maintained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import ColumnName
from pipelines.declarations.service_level import ServiceLevel, frequency_minutes

MONITORING = "monitoring"
"""Custom property of a contract: the settings of its monitor."""

MONITOR_HOUR = 5
"""Hour (UTC) at which datasets are monitored daily, one hour after ingestion."""

RUNS_METRIC = "Runs"
"""CloudWatch metric: 1 for each finished run of a monitor."""

ALARMS_METRIC = "Alarms"
"""CloudWatch metric: number of checks whose verdict is `alarm`."""

DATASET_DIMENSION = "Dataset"
"""CloudWatch dimension of a data monitor's metrics."""

TABLE_DIMENSION = "Table"
"""CloudWatch dimension of the metrics of table maintenance."""

MAINTENANCE_HOUR = 2
"""Hour (UTC) at which tables are maintained, before new data is looked for."""

VOLUME_PERIODS = 26 * 7
"""Periods (days or deliveries) before the newest one from which its volume is forecast."""

_SUB_DAILY_SILENCE_HOURS = 3

DAILY_SILENCE_HOURS = 26
"""Hours without a run after which a daily job counts as dead."""


class DataMonitorSettings(Declaration):
    """How a dataset is monitored.

    Attributes:
        enabled: False for no monitor.
        minimum_effect: least share of rows that must have moved to another part of a column's distribution before a
            significant difference is an alarm.
        minimum_rows: rows with a value, before and in the newest delivery, without which a column's drift is unknown.
        reference_deliveries: number of deliveries before the newest one that it is compared with.
        ignored_columns: columns whose drift is not checked, such as a number that counts up.
    """

    enabled: bool = True
    minimum_effect: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.04
    minimum_rows: Annotated[int, Field(ge=30)] = 100
    reference_deliveries: Annotated[int, Field(ge=1, le=1000)] = 30
    ignored_columns: tuple[ColumnName, ...] = ()


def is_daily(levels: Sequence[ServiceLevel]) -> bool:
    """Return True if data arrives once a day or less often, as far as the contract says."""
    minutes = frequency_minutes(levels)
    return minutes is None or minutes >= 24 * 60


def monitor_schedule(dataset: str, levels: Sequence[ServiceLevel]) -> str:
    """Return when to monitor a dataset, as a cron expression in UTC: daily, or hourly if data arrives more often.

    The minute depends on the dataset's name, so that the jobs of many datasets do not start together.
    """
    minute = _minute("monitor", dataset)
    return f"{minute} {MONITOR_HOUR} * * *" if is_daily(levels) else f"{minute} * * * *"


def maintenance_schedule(dataset: str) -> str:
    """Return when to maintain the table of a dataset, as a cron expression in UTC: daily."""
    return f"{_minute('maintain', dataset)} {MAINTENANCE_HOUR} * * *"


def _minute(job: str, dataset: str) -> int:
    return int(hashlib.sha256(f"{job} {dataset}".encode()).hexdigest(), 16) % 60


def longest_silence_hours(levels: Sequence[ServiceLevel]) -> int:
    """Return after how many hours without a run the monitor of a dataset counts as dead."""
    return DAILY_SILENCE_HOURS if is_daily(levels) else _SUB_DAILY_SILENCE_HOURS
