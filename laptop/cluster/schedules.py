"""When a CronJob is due."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
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
    """The text is not a schedule, or the time zone is not known."""


def parse_schedule(schedule: str, time_zone: str | None = None) -> tuple[str, tzinfo]:
    """The five cron fields and the zone they are read in (UTC unless named); raises ScheduleError."""
    fields = _MACROS.get(schedule.strip(), schedule.strip())
    if len(fields.split()) != 5:
        raise ScheduleError(f"{schedule!r} is not five cron fields (minute hour day month weekday)")
    try:
        # UTC is known on every machine, other zones where the system's table of them is installed.
        zone: tzinfo = UTC if time_zone in (None, "UTC", "Etc/UTC") else ZoneInfo(time_zone or "")
        CronSim(fields, datetime.now(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(f"the time zone {time_zone!r} is not known") from error
    except CronSimError as error:
        raise ScheduleError(f"{schedule!r} is not a cron schedule: {error}") from error
    return fields, zone


def next_run(schedule: str, time_zone: str | None, after: datetime) -> datetime | None:
    """The first time after `after` (aware) that the schedule names; None when there is none in sight."""
    fields, zone = parse_schedule(schedule, time_zone)
    return next(CronSim(fields, after.astimezone(zone)), None)
