"""Respond to an alarm: ask people, retrain, or roll back."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipelines.cluster.connection import keep_connected
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.monitoring.alarm import Alarm
from pipelines.promotion.alarm_report import read_alarm_report
from pipelines.promotion.attempt import Attribution, Log
from pipelines.promotion.comments.alarm_issue import ask_people
from pipelines.promotion.request_training import request_training
from pipelines.promotion.response_plan import AlarmFacts, handled_before, reason_to_ask, reason_to_ignore
from pipelines.promotion.rollback import KnownTraffic, roll_back
from pipelines.promotion.rollback_plan import read_facts_of_traffic
from pipelines.registry.ledger import new_attempt, words
from pipelines.registry.response_outcomes import ResponseOutcome, find_outcomes, read_outcomes, write_outcome
from pipelines.targets import Target

ISSUES_TOKEN = "ISSUES_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with a token that may write issues, if that of `gh` may not."""


@keep_connected()
def respond(target: Target, alarm: Alarm, log: Log) -> None:
    """Respond to an alarm, and record the outcome.

    An alarm is handled once, and ignored if it names a bundle that is neither live nor on trial. If people must decide
    about a rollback, an issue asks them.

    Args:
        target: where the environments live.
        alarm: the alarm; the project declares its model and environment.
        log: receives progress.

    Raises:
        MlopsError: GitHub refuses, or the rollback failed.
    """
    descriptor = target.descriptor(alarm.environment)
    facts = read_alarm_facts(target, descriptor, alarm)
    if facts.handled is not None:
        log(f"the alarm {alarm.id} was handled at {facts.handled.at:%Y-%m-%d %H:%M} UTC: {facts.handled.detail}")
        return
    alarm_id = alarm.id or _id_of_run()
    ignored = reason_to_ignore(alarm, facts, _cool_down_hours(target, alarm))
    known = KnownTraffic(descriptor, facts.traffic) if facts.traffic is not None else None
    detail = ignored or _act(target, descriptor, alarm, alarm_id, reason_to_ask(alarm, facts), known, log)
    if ignored:
        log(ignored)
    write_outcome(
        descriptor,
        ResponseOutcome(
            id=alarm_id,
            model=alarm.model,
            environment=alarm.environment,
            response=alarm.wanted,
            outcome="ignored" if ignored else "done",
            detail=detail,
            reason=alarm.reason,
            bundle=alarm.bundle,
            at=datetime.now(UTC),
            run=run_url(),
        ),
    )


def read_alarm_facts(target: Target, descriptor: EnvironmentDescriptor, alarm: Alarm) -> AlarmFacts:
    """Read what an alarm is judged by. Read-only.

    Raises:
        MlopsError: the registry, the cluster or the origin cannot be read.
    """
    now = datetime.now(UTC)
    outcomes = find_outcomes(descriptor, alarm.model, alarm.id) if alarm.id is not None else []
    handled = handled_before(alarm, outcomes)
    if handled is not None:
        return AlarmFacts(frozenset(), handled, (), now)
    is_about_traffic = alarm.bundle is not None or alarm.wanted == "roll-back"
    traffic = read_facts_of_traffic(target.project, descriptor, alarm.model) if is_about_traffic else None
    concerned = (traffic.live, traffic.on_trial, traffic.stopped) if traffic is not None else ()
    recent: tuple[ResponseOutcome, ...] = ()
    if alarm.wanted == "retrain":
        since = now - timedelta(hours=_cool_down_hours(target, alarm))
        recent = tuple(read_outcomes(descriptor, alarm.model, since=since))
    return AlarmFacts(frozenset(one for one in concerned if one is not None), None, recent, now, traffic)


def _act(
    target: Target,
    descriptor: EnvironmentDescriptor,
    alarm: Alarm,
    alarm_id: str,
    doubt: str,
    known: KnownTraffic | None,
    log: Log,
) -> str:
    """Do what an alarm requests, or ask people if there is a doubt about it, and return what was done."""
    if alarm.wanted == "retrain":
        request_training(target.project, [alarm.model], log)
        return "started the workflow train"
    if alarm.wanted == "ask" or doubt:
        if doubt:
            log(f"not rolled back: {doubt}")
            alarm = alarm.model_copy(update={"reason": words(f"not rolled back: {doubt}. {alarm.reason}")})
        gh = replace(Gh.find(target.project.root), token=os.environ.get(ISSUES_TOKEN, ""))
        issues = ask_people(target.project, gh, alarm, alarm_id, run_url(), read_alarm_report(descriptor, alarm))
        said = ", ".join(f"{'opened' if one.is_new else 'commented on'} issue {one.number}" for one in issues)
        log(said)
        return said
    entry = roll_back(
        target,
        alarm.environment,
        alarm.model,
        alarm.reason,
        Attribution.of_caller(Git(target.project.root)),
        log,
        automatic=True,
        suspect=alarm.bundle,
        known=known,
    )
    said = f"{alarm.model} in {alarm.environment} runs {entry.event.live} (ledger record {entry.record.number})"
    log(said)
    return said


def _cool_down_hours(target: Target, alarm: Alarm) -> float:
    return target.project.model(alarm.model).monitoring.responses.cool_down_hours


def _id_of_run() -> str:
    """Return the identity of an alarm whose sender gave none: the workflow run, so that its retry is the same alarm."""
    run = os.environ.get("GITHUB_RUN_ID")
    return f"run-{run}" if run else f"call-{new_attempt()[:20]}"
