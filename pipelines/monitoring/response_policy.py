"""Decide what the alarms of a model's monitor lead to: nothing, a question, a training or a rollback. Pure functions.

An alarm counts once it was seen in `k` of the last `n` windows of the same bundle. A rollback needs evidence of harm:
labelled accuracy or errors, or the estimate of accuracy together with another check. Drift alone never rolls back.

The accuracy of a release on trial is about another bundle, and its test is sequential: one alarm counts.

Reports and decisions of the future come from a run whose clock was wrong. They would hide all others until their time
has come, so they do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipelines.declarations.alarm_events import ALARM_EVENT
from pipelines.declarations.digests import Digest, digest_of_value
from pipelines.declarations.documents import Declaration
from pipelines.declarations.model_responses import ActiveResponse, ModelResponses
from pipelines.declarations.names import Name, model_monitor_name
from pipelines.declarations.timestamps import CLOCKS, Timestamp
from pipelines.monitoring.alarm import LONGEST_REASON, Alarm, AlarmId
from pipelines.monitoring.monitor_findings import CheckKind, alarming_checks, finding_name
from pipelines.monitoring.trial_accuracy import TRIAL_CHECK
from pipelines.registry.ledger import words

if TYPE_CHECKING:
    from pipelines.monitoring.model_report import ModelMonitorReport

MEASURED_HARM = ("errors", "accuracy")
"""Checks that justify a rollback alone: they measure what went wrong."""

ESTIMATED_HARM = "estimated-accuracy"
"""Check that justifies a rollback together with another: the estimate is blind to some changes, and sees others that do
no harm."""

NO_HARM = "traffic"
"""Check that says nothing about the model: too few requests, or records of them that were lost."""

_ID_DIGITS = 20


class ResponseDecision(Declaration):
    """A decision that something must happen.

    Attributes:
        id: the same for the same findings, so that an alarm that is sent twice is one alarm.
        model, environment: the deployment.
        bundle: the bundle that the findings are about; None if the monitor does not know it.
        response: what must happen.
        checks: the checks that led to it.
        reason: what they found, in words.
        decided: when it was decided.
        window_end: end of the window that the newest report is about.
        report: name of that report; "" if it has none.
    """

    format: Literal["mlops/response/v1"] = "mlops/response/v1"
    id: AlarmId
    model: Name
    environment: Name
    bundle: Digest | None
    response: ActiveResponse
    checks: Annotated[tuple[CheckKind, ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON)]
    decided: Timestamp
    window_end: Timestamp
    report: str = ""

    def alarm(self) -> Alarm:
        """Return the alarm that requests the response."""
        return Alarm(
            kind=ALARM_EVENT,
            model=self.model,
            environment=self.environment,
            reason=self.reason,
            bundle=self.bundle,
            response=self.response,
            id=self.id,
            checks=self.checks,
            monitor=model_monitor_name(self.model),
            report=self.report or None,
        )


def decide(
    reports: Iterable[ModelMonitorReport],
    policy: ModelResponses,
    now: datetime,
    history: Sequence[ResponseDecision],
    *,
    report: str = "",
) -> ResponseDecision | None:
    """Return the strongest response that the newest report calls for, or None.

    Args:
        reports: the newest reports of one model in one environment, in any order. Two reports about the same window
            count once.
        policy: the declared responses.
        now: the present time.
        history: earlier decisions, in any order.
        report: name of the newest report.
    """
    windows = _windows(one for one in reports if one.window_end <= now + CLOCKS)
    if not windows:
        return None
    newest = windows[-1]
    on_trial = _trial_decision(newest, policy, now, history, report)
    if on_trial is not None:
        return on_trial
    confirmed = _confirmed(windows, policy)
    since = now - timedelta(hours=policy.cool_down_hours)
    recent = [one for one in history if since < one.decided <= now + CLOCKS]
    wanted: dict[ActiveResponse, list[CheckKind]] = {"roll-back": [], "retrain": [], "ask": []}
    for check in confirmed:
        response = policy.to(check)
        if response != "none":
            wanted[response].append(check)
    doubt = ""
    if wanted["roll-back"]:
        rolled_back = [one for one in recent if one.response == "roll-back"]
        doubt = _doubt(newest.bundle, confirmed, rolled_back)
        if doubt:
            wanted["ask"] += wanted.pop("roll-back")
        elif any(one.bundle == newest.bundle for one in rolled_back):
            wanted.pop("roll-back")
    if any(one.response == "retrain" for one in recent):
        wanted.pop("retrain")
    asked = {check for one in recent if one.response == "ask" for check in one.checks}
    wanted["ask"] = [check for check in wanted["ask"] if check not in asked]
    for response, checks in wanted.items():
        if checks:
            reason = _reason(windows, checks, policy, doubt)
            return _decision(newest, newest.bundle, response, checks, reason, now, report)
    return None


def _trial_decision(
    newest: ModelMonitorReport,
    policy: ModelResponses,
    now: datetime,
    history: Sequence[ResponseDecision],
    report: str,
) -> ResponseDecision | None:
    """Return the response to the accuracy of the release on trial, once for each release; None if there is none."""
    response = policy.to(TRIAL_CHECK)
    if newest.trial is None or response == "none" or TRIAL_CHECK not in alarming_checks(newest.findings):
        return None
    if any(one.bundle == newest.trial and TRIAL_CHECK in one.checks for one in history):
        return None
    reason = _reason([newest], [TRIAL_CHECK], policy, "")
    return _decision(newest, newest.trial, response, [TRIAL_CHECK], reason, now, report)


def _windows(reports: Iterable[ModelMonitorReport]) -> list[ModelMonitorReport]:
    """Return one report for each window of the newest report's bundle, the oldest first.

    Of two reports about one window the later one counts, which knows more labels.
    """
    ordered = sorted(reports, key=_order)
    newest: dict[tuple[datetime, datetime], ModelMonitorReport] = {}
    for one in ordered:
        if one.bundle == ordered[-1].bundle:
            newest[one.window_start, one.window_end] = one
    return sorted(newest.values(), key=lambda one: (one.window_end, one.window_start))


def _order(report: ModelMonitorReport) -> tuple[datetime, datetime, int, str, tuple[CheckKind, ...]]:
    alarming = alarming_checks(report.findings)
    return report.window_end, report.time, len(alarming), report.bundle or "", alarming


def _confirmed(windows: Sequence[ModelMonitorReport], policy: ModelResponses) -> list[CheckKind]:
    """Return the checks that are an alarm now, and were in enough of the last windows."""
    last = windows[-policy.hysteresis.of :]
    return [
        check
        for check in alarming_checks(windows[-1].findings)
        if check != TRIAL_CHECK
        and sum(check in alarming_checks(window.findings) for window in last) >= policy.hysteresis.alarms
    ]


def _doubt(bundle: str | None, confirmed: Sequence[str], rolled_back: Sequence[ResponseDecision]) -> str:
    """Return why a person must decide about a rollback; "" if it may go ahead."""
    if bundle is None:
        return "the monitor does not know which bundle is live"
    estimated = ESTIMATED_HARM in confirmed and any(check not in (ESTIMATED_HARM, NO_HARM) for check in confirmed)
    if not estimated and not any(check in confirmed for check in MEASURED_HARM):
        return "neither labelled accuracy nor errors nor the estimate confirm it"
    if any(one.bundle != bundle for one in rolled_back):
        return "another bundle was rolled back shortly before, so the cause may be elsewhere"
    return ""


def _reason(
    windows: Sequence[ModelMonitorReport], checks: Sequence[CheckKind], policy: ModelResponses, doubt: str
) -> str:
    found = {finding.check: finding for finding in reversed(windows[-1].findings) if finding.verdict == "alarm"}
    said = "; ".join(f"{finding_name(found[check])}: {found[check].reason}" for check in checks)
    stopped = [check for check in checks if policy.to(check) == "roll-back"] if doubt else []
    note = f"not rolled back: {doubt}. " if stopped else ""
    return words(note + said, LONGEST_REASON)


def _decision(
    newest: ModelMonitorReport,
    bundle: str | None,
    response: ActiveResponse,
    checks: Sequence[CheckKind],
    reason: str,
    now: datetime,
    report: str,
) -> ResponseDecision:
    facts = {
        "model": newest.model,
        "environment": newest.environment,
        "bundle": bundle,
        "response": response,
        "checks": sorted(checks),
        "window_end": newest.window_end.isoformat(),
    }
    return ResponseDecision(
        id=digest_of_value(facts).removeprefix("sha256:")[:_ID_DIGITS],
        model=newest.model,
        environment=newest.environment,
        bundle=bundle,
        response=response,
        checks=tuple(checks),
        reason=reason,
        decided=now,
        window_end=newest.window_end,
        report=report,
    )
