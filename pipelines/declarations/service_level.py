"""Service levels of a data contract, and how often new data is looked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from pipelines.declarations.documents import Declaration

FREQUENCY = "frequency"
"""Service level that says how often data arrives."""

FRESHNESS = ("freshness", "latency")
"""Service levels that say how old the newest data may be; the first that a contract has counts."""

RETENTION = "retention"
"""Service level that says how long data is kept."""

LONGEST_RETENTION_YEARS = 1000

DAILY_HOUR = 4
"""Hour (UTC) at which daily data is looked for."""

_MINUTES = {
    **dict.fromkeys(("min", "minute", "minutes"), 1),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 60),
    **dict.fromkeys(("d", "day", "days"), 24 * 60),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 7 * 24 * 60),
    **dict.fromkeys(("mo", "month", "months"), 30 * 24 * 60),
    **dict.fromkeys(("y", "yr", "year", "years"), 365 * 24 * 60),
}
"""Unit of a frequency → minutes. The standard names days and years only; `m` alone would be ambiguous."""


class ServiceLevel(Declaration):
    """Entry of `slaProperties`.

    Attributes:
        property: name of the service level. `frequency` schedules ingestion, `freshness` (or `latency`) bounds the age
            of the newest delivery for the monitor, and `retention` the age of rows and versions; the others are
            accepted unread.
        value: the agreed value; of `frequency`, the time between two deliveries in `unit`; of `freshness` and
            `retention`, an age.
        unit: unit of the value: `min`, `h`, `d`, `w`, `mo`, `y`.
        element: of `retention`, the column of type date or timestamp that gives the age of a row.
        scheduler: `cron` if `schedule` is a cron expression.
        schedule: when to look for new data, in UTC; overrides `value` of `frequency`.
    """

    id: str | None = None
    property: Annotated[str, StringConstraints(min_length=1)]
    value: str | int | float | bool | None = None
    value_ext: str | int | float | bool | None = Field(None, alias="valueExt")
    unit: str | None = None
    element: str | None = None
    driver: str | None = None
    description: str | None = None
    scheduler: str | None = None
    schedule: str | None = None
    custom_properties: tuple[dict[str, Any], ...] = Field((), alias="customProperties")
    authoritative_definitions: tuple[dict[str, Any], ...] = Field((), alias="authoritativeDefinitions")

    @model_validator(mode="after")
    def _retention_is_a_time(self) -> ServiceLevel:
        if self.property == RETENTION:
            minutes = _duration_minutes(self)
            if minutes is None or minutes < _MINUTES["d"] or minutes > LONGEST_RETENTION_YEARS * _MINUTES["y"]:
                found = " ".join(str(each) for each in (self.value, self.unit) if each is not None) or "none"
                raise ValueError(
                    f"a retention of 1 day to {LONGEST_RETENTION_YEARS} years (value: a number; unit: d, w, mo or y); "
                    f"found {found}"
                )
        return self

    @model_validator(mode="after")
    def _frequency_can_be_scheduled(self) -> ServiceLevel:
        if self.property != FREQUENCY:
            return self
        if self.schedule is not None:
            if self.scheduler != "cron":
                raise ValueError(f"scheduler: cron for the schedule of a frequency; found {self.scheduler or 'none'}")
            if len(self.schedule.split()) != 5:
                raise ValueError(f"a cron expression with five fields as schedule; found {self.schedule!r}")
            return self
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or float(str(self.value)) <= 0:
            raise ValueError(f"a number above 0 as value of frequency; found {self.value!r}")
        if self.unit not in _MINUTES:
            raise ValueError(f"one of {', '.join(_MINUTES)} as unit of frequency; found {self.unit or 'none'}")
        return self


def ingest_schedule(dataset: str, levels: Sequence[ServiceLevel]) -> str | None:
    """Return when to look for new data of a dataset, as a cron expression in UTC.

    Data is looked for at least as often as it arrives, and at least daily. The minute depends on the dataset's name, so
    that the jobs of many datasets do not start together.

    Args:
        dataset: name of the dataset.
        levels: its service levels, with at most one `frequency`.

    Returns:
        The cron expression; None if the contract has no `frequency`.
    """
    level = next((level for level in levels if level.property == FREQUENCY), None)
    if level is None:
        return None
    if level.schedule is not None:
        return " ".join(level.schedule.split())
    minutes = float(str(level.value)) * _MINUTES[level.unit or ""]
    minute = int(hashlib.sha256(dataset.encode()).hexdigest(), 16) % 60
    if minutes < 60:
        step = max((each for each in range(1, 31) if 60 % each == 0 and each <= minutes), default=1)
        return f"*/{step} * * * *" if step > 1 else "* * * * *"
    if minutes < 24 * 60:
        step = max(each for each in range(1, 13) if 24 % each == 0 and each * 60 <= minutes)
        return f"{minute} */{step} * * *" if step > 1 else f"{minute} * * * *"
    return f"{minute} {DAILY_HOUR} * * *"


def frequency_minutes(levels: Sequence[ServiceLevel]) -> float | None:
    """Return the time between two deliveries in minutes; None if the contract gives none, or only a cron expression."""
    level = next((level for level in levels if level.property == FREQUENCY), None)
    return _duration_minutes(level) if level is not None and level.schedule is None else None


def freshness_minutes(levels: Sequence[ServiceLevel]) -> float | None:
    """Return the greatest agreed age of the newest delivery in minutes; None if the contract gives none."""
    named = (level for name in FRESHNESS for level in levels if level.property == name)
    return next((minutes for level in named if (minutes := _duration_minutes(level)) is not None), None)


def retention_level(levels: Sequence[ServiceLevel]) -> ServiceLevel | None:
    """Return the service level that says how long data is kept; None if the contract has none."""
    return next((level for level in levels if level.property == RETENTION), None)


def retention_time(levels: Sequence[ServiceLevel]) -> timedelta | None:
    """Return how long data is kept; None if the contract does not say."""
    level = retention_level(levels)
    minutes = _duration_minutes(level) if level is not None else None
    return timedelta(minutes=minutes) if minutes is not None else None


def _duration_minutes(level: ServiceLevel) -> float | None:
    if isinstance(level.value, bool) or not isinstance(level.value, int | float) or level.unit not in _MINUTES:
        return None
    return level.value * _MINUTES[level.unit] if level.value > 0 else None
