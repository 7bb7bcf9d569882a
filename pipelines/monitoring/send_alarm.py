"""Send the alarms of a model's monitor to the account's EventBridge bus, from which they reach GitHub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.alarm_events import ALARM_EVENT, alarm_source
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.model_responses import ModelResponses
from pipelines.declarations.timestamps import CLOCKS
from pipelines.monitoring.alarm import Alarm
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_reports import read_model_report, report_name, report_names
from pipelines.monitoring.response_policy import ResponseDecision, decide
from pipelines.monitoring.response_records import mark_sent, read_decisions, write_decision
from pipelines.registry import clients

_MOST_REPORTS = 200


def respond_to_newest(
    descriptor: EnvironmentDescriptor, model: Model, prefix: str, now: datetime, log: Callable[[str], None]
) -> ResponseDecision | None:
    """Respond to the newest report about a model, as its declaration says; see `respond_to_reports`.

    Args:
        descriptor: the environment.
        model: the declaration.
        prefix: name prefix of the environment's resources; "" to send nothing and only record the decision.
        now: the present time.
        log: receives a line for each decision and each alarm.

    Raises:
        MlopsError: a report or a decision cannot be read or written, or EventBridge refused the alarm.
    """
    policy = model.monitoring.responses
    # Runs can overlap, and a window can have several reports.
    known = report_names(descriptor, model.name, "models")
    last = report_name(now + CLOCKS, None)
    names = [name for name in known if name <= last][: min(4 * policy.hysteresis.of, _MOST_REPORTS)]
    if known and known[0] > last:
        log(f"reports of the future do not count, such as {known[0]}: the clock of a run was wrong")
    reports = [read_model_report(descriptor, model.name, name) for name in names]
    newest = names[0] if names else ""
    return respond_to_reports(descriptor, model.name, reports, policy, now, prefix, log, report=newest)


def respond_to_reports(
    descriptor: EnvironmentDescriptor,
    model: str,
    reports: Iterable[ModelMonitorReport],
    policy: ModelResponses,
    now: datetime,
    prefix: str,
    log: Callable[[str], None],
    *,
    report: str = "",
) -> ResponseDecision | None:
    """Decide what the newest report calls for, record the decision, and send its alarm.

    Alarms of earlier decisions that were never sent are sent first. An alarm can be sent twice; its id says so.

    Args:
        descriptor: the environment.
        model: the model's name.
        reports: its newest reports, in any order.
        policy: its declared responses.
        now: the present time.
        prefix: name prefix of the environment's resources; "" to send nothing and only record the decision.
        log: receives a line for each decision and each alarm.
        report: name of the newest report.

    Returns:
        The new decision; None if nothing must happen.

    Raises:
        MlopsError: the decisions cannot be read or written, or EventBridge refused the alarm. The next run sends it.
    """
    history, unsent = read_decisions(descriptor, model)
    decision = decide(reports, policy, now, history, report=report)
    if decision is not None:
        write_decision(descriptor, decision)
        log(f"{decision.response}: {decision.reason}")
        unsent = [decision, *(one for one in unsent if one.id != decision.id)]
    if prefix:
        for one in reversed(unsent):
            send_alarm(descriptor, one.alarm(), prefix)
            mark_sent(descriptor, one)
            log(f"sent the alarm {one.id} ({one.response})")
    return decision


def send_alarm(descriptor: EnvironmentDescriptor, alarm: Alarm, prefix: str) -> None:
    """Put an alarm on the account's default EventBridge bus.

    Args:
        descriptor: the environment.
        alarm: the alarm.
        prefix: name prefix of the environment's resources.

    Raises:
        MlopsError: EventBridge refused the event, or cannot be reached.
    """
    entry = {
        "Source": alarm_source(prefix, alarm.model),
        "DetailType": ALARM_EVENT,
        "Detail": json.dumps(alarm.payload()),
    }
    fix = "the next run of the monitor sends it; if that fails, too, grant the job's role events:PutEvents"
    try:
        answer = clients.client("events", descriptor.region).put_events(Entries=[entry])
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(f"the alarm {alarm.id} was not sent: {error}", fix=fix) from None
    if answer["FailedEntryCount"]:
        failed = answer["Entries"][0]
        why = f"{failed.get('ErrorCode')}: {failed.get('ErrorMessage')}"
        raise MlopsError(f"EventBridge did not take the alarm {alarm.id}: {why}", fix=fix)
