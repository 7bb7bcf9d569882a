"""Decide whether an alarm gets its response, is ignored, or becomes a question to people. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.monitoring.alarm import Alarm
from pipelines.promotion.rollback_plan import TrafficFacts, may_roll_back_automatically
from pipelines.registry.ledger import CLOCK_DIFFERENCE, words
from pipelines.registry.response_outcomes import ResponseOutcome


@dataclass(frozen=True)
class AlarmFacts:
    """Facts about an alarm.

    Attributes:
        concerned: bundles that are live, on trial, or stopped and not yet taken back; those that an alarm can be about.
        handled: outcome of the same alarm before; None if it is new.
        recent: outcomes of other recent alarms about the same model and environment, in any order.
        now: the present time.
        traffic: the bundles of the model; None if they were not needed.
    """

    concerned: frozenset[str]
    handled: ResponseOutcome | None
    recent: Sequence[ResponseOutcome]
    now: datetime
    traffic: TrafficFacts | None = None


def handled_before(alarm: Alarm, outcomes: Sequence[ResponseOutcome]) -> ResponseOutcome | None:
    """Return the outcome of the same alarm; None if it is new.

    The id alone does not prove it: everyone with write access can send an alarm, and may know the id of the next one.
    Only an alarm that requested the same, for the same reason, counts, and only if the response was carried out. All
    responses may be repeated: a bundle that was rolled back is no longer live, and a training starts a cool-down.

    Args:
        alarm: the alarm.
        outcomes: outcomes of alarms with its id.
    """
    same = (alarm.wanted, alarm.bundle, words(alarm.reason))
    return next(
        (one for one in outcomes if one.outcome == "done" and (one.response, one.bundle, one.reason) == same), None
    )


def reason_to_ignore(alarm: Alarm, facts: AlarmFacts, cool_down_hours: float) -> str:
    """Return why an alarm needs no response; "" if it needs one.

    Args:
        alarm: the alarm.
        facts: the facts.
        cool_down_hours: hours after a training in which no other alarm starts one.
    """
    if alarm.bundle is not None and alarm.bundle not in facts.concerned:
        return f"{alarm.bundle} is no longer live in {alarm.environment}; there is nothing to do"
    if alarm.wanted == "retrain":
        since, latest = facts.now - timedelta(hours=cool_down_hours), facts.now + CLOCK_DIFFERENCE
        for one in facts.recent:
            if (one.response, one.outcome) == ("retrain", "done") and since < one.at <= latest:
                return f"an alarm started a training at {one.at:%Y-%m-%d %H:%M} UTC already"
    return ""


def reason_to_ask(alarm: Alarm, facts: AlarmFacts) -> str:
    """Return why people must decide about a rollback that an alarm requests; "" if it may go ahead.

    Args:
        alarm: the alarm.
        facts: the facts.
    """
    traffic = facts.traffic
    if alarm.wanted != "roll-back" or traffic is None or traffic.restored is None:
        return ""
    is_retry = traffic.restored.event.reason == words(alarm.reason)
    if is_retry or may_roll_back_automatically(traffic, alarm.bundle):
        return ""
    return "a rollback restored the live bundle, so the cause may be elsewhere"
