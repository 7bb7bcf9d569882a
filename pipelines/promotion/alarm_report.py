"""Read the monitor report that an alarm names. Read-only.

A rollback needs none and must be fast, so the types of reports are imported when one is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.alarm import Alarm
from pipelines.registry.store import AccessDeniedError, NotFoundError

if TYPE_CHECKING:
    from pipelines.monitoring.model_report import ModelMonitorReport


@dataclass(frozen=True)
class AlarmReport:
    """The report that an alarm names.

    Attributes:
        report: the report; None if it cannot be shown.
        before: the report before it; None if there is none, or it cannot be read.
        missing: why it cannot be shown; "" if it can.
    """

    report: ModelMonitorReport | None = None
    before: ModelMonitorReport | None = None
    missing: str = ""


def read_alarm_report(descriptor: EnvironmentDescriptor, alarm: Alarm) -> AlarmReport:
    """Read the report that an alarm names, and the one before it. Never fails: people are asked without it, too."""
    if alarm.report is None:
        return AlarmReport(missing="the alarm names none")
    from pipelines.monitoring.monitor_reports import read_model_report

    try:
        report = read_model_report(descriptor, alarm.model, alarm.report)
    except NotFoundError:
        return AlarmReport(missing="the logs bucket does not have it; reports are kept for `log_days`")
    except AccessDeniedError:
        return AlarmReport(missing="the deploy role may not read it; run bootstrap again (docs/bootstrap.md)")
    except (MlopsError, BotoCoreError, ClientError):
        return AlarmReport(missing="it cannot be read, or is damaged; run the monitor again")
    if (report.model, report.environment) != (alarm.model, alarm.environment):
        return AlarmReport(missing="it is about another model or environment")
    return AlarmReport(report, _read_before(descriptor, alarm.model, alarm.report))


def _read_before(descriptor: EnvironmentDescriptor, model: str, name: str) -> ModelMonitorReport | None:
    from pipelines.monitoring.monitor_reports import read_model_report, report_names

    try:
        earlier = [each for each in report_names(descriptor, model, "models") if each < name]
        return read_model_report(descriptor, model, earlier[0]) if earlier else None
    except (MlopsError, BotoCoreError, ClientError):
        return None
