"""Send the alarms of a model's monitor to the account's EventBridge bus, from which they reach GitHub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.alarm_events import ALARM_EVENT, alarm_source
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import ModelResponses
from pipelines.monitoring.alarm import Alarm
from pipelines.monitoring.response_policy import ResponseDecision, decide
from pipelines.monitoring.response_records import mark_sent, read_decisions, write_decision
from pipelines.registry import clients

if TYPE_CHECKING:
    from pipelines.monitoring.model_report import ModelMonitorReport


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
