"""Schedules of CronJobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(ValueError):
    """The schedule or the time zone is not valid."""


def parse_schedule(schedule: str, time_zone: str | None = None) -> tuple[str, tzinfo]:
    """Return the five cron fields of a schedule, and its time zone, UTC by default.

    Raises:
        ScheduleError: the schedule or the time zone is not valid.
    """
    fields = _MACROS.get(schedule.strip(), schedule.strip())
    if len(fields.split()) != 5:
        raise ScheduleError(f"{schedule!r} is not a cron schedule: expected five fields, minute hour day month weekday")
    try:
        # UTC is known on every machine; other zones only if the system's table of them is installed.
        zone: tzinfo = UTC if time_zone in (None, "UTC", "Etc/UTC") else ZoneInfo(time_zone or "")
        CronSim(fields, datetime.now(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(f"unknown time zone {time_zone!r}") from error
    except CronSimError as error:
        raise ScheduleError(f"{schedule!r} is not a cron schedule: {error}") from error
    return fields, zone


def next_run(schedule: str, time_zone: str | None, after: datetime) -> datetime | None:
    """Return the first due time after an aware time, or None if there is none."""
    fields, zone = parse_schedule(schedule, time_zone)
    return next(CronSim(fields, after.astimezone(zone)), None)


def last_run(schedule: str, time_zone: str | None, after: datetime, until: datetime) -> datetime | None:
    """Return the last due time after an aware time and not after another, or None if there is none."""
    fields, zone = parse_schedule(schedule, time_zone)
    # One second later, because the search is for earlier times only.
    found = next(CronSim(fields, until.astimezone(zone) + timedelta(seconds=1), reverse=True), None)
    return found if found is not None and found > after else None


def zone_of(time_zone: str | None) -> tzinfo:
    """Return a time zone, UTC by default.

    Raises:
        ScheduleError: it is not known.
    """
    return parse_schedule("@hourly", time_zone)[1]
