"""Respond to an alarm: retrain on drift, roll back on a breach."""

from __future__ import annotations

from pipelines.github.git import Git
from pipelines.promotion.alarm import read_declared_alarm
from pipelines.promotion.attempt import Attribution, Log
from pipelines.promotion.request_training import request_training
from pipelines.promotion.rollback import roll_back
from pipelines.targets import Target


def respond(target: Target, event: bytes, log: Log) -> None:
    """Respond to the alarm in a `repository_dispatch` event.

    Drift starts the workflow `train`. A breach rolls the model back. If a rollback restored the live bundle, the alarm
    must name it: then the model goes further back, to a bundle that was verified earlier. If the alarm names a bundle
    that is no longer live, nothing is done. Otherwise a person must decide, so this fails.

    Args:
        target: where the environments live.
        event: the event, as JSON.
        log: receives progress.

    Raises:
        MlopsError: the event is not an alarm, GitHub refuses, or the rollback failed.
    """
    alarm = read_declared_alarm(target.project, event)
    if alarm.kind == "drift":
        request_training(target.project, [alarm.model], log)
        return
    entry = roll_back(
        target,
        alarm.environment,
        alarm.model,
        alarm.reason,
        Attribution.of_caller(Git(target.project.root)),
        log,
        automatic=True,
        suspect=alarm.bundle,
    )
    log(f"{alarm.model} in {alarm.environment} runs {entry.event.live} (ledger record {entry.record.number})")
