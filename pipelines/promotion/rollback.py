"""Roll back to the bundle that was live before, or stop a bundle on trial: traffic first, then git, then the ledger.

The quarantine is written before traffic moves. So a rollback that was killed continues when it is run again, and until
then no deployment brings the bundle back. The ledger is written last.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.cluster.connection import keep_connected
from pipelines.cluster.rollouts import abort_rollout
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.outages import AFTER_AN_OUTAGE, OutageError
from pipelines.github.run_request import requested_at
from pipelines.promotion.attempt import Attribution, Log
from pipelines.promotion.restore import restore_release
from pipelines.promotion.rollback_plan import (
    RollbackPlan,
    TrafficFacts,
    may_roll_back_automatically,
    plan_rollback,
    read_facts_of_traffic,
)
from pipelines.promotion.rollback_rights import check_rights
from pipelines.promotion.traffic import move_traffic
from pipelines.promotion.traffic_lease import Verb, hold_traffic
from pipelines.promotion.trial import try_bundle
from pipelines.promotion.verify import verify
from pipelines.registry import evidence
from pipelines.registry.bundle_quarantine import Quarantined, quarantine
from pipelines.registry.evidence import VerifiedBundle
from pipelines.registry.ledger import Entry, Event, Ledger, new_attempt, words
from pipelines.targets import Target


@dataclass(frozen=True)
class KnownTraffic:
    """What a caller has read about an environment before it rolls back.

    Attributes:
        descriptor: the environment.
        facts: bundles of the model there.
    """

    descriptor: EnvironmentDescriptor
    facts: TrafficFacts


@keep_connected()
def roll_back(
    target: Target,
    environment: str,
    model: str,
    reason: str,
    attribution: Attribution,
    log: Log,
    *,
    automatic: bool = False,
    suspect: str | None = None,
    known: KnownTraffic | None = None,
) -> Entry:
    """Roll a model back in an environment. A bundle on trial is stopped, and the live one stays.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        reason: recorded in the ledger, and shown when the bad bundle is proposed again.
        attribution: recorded in the ledger.
        log: receives progress.
        automatic: an alarm requested the rollback. It does not undo an earlier rollback, so that a faulty monitor
            cannot walk back through the history.
        suspect: the bundle found bad, if known. If it is neither live nor on trial, nothing is done.
        known: what the caller has just read; it is read again before anything changes.

    Returns:
        The ledger entry that records the rollback, or that of the live bundle if nothing was to be done.

    Raises:
        MissingRightsError: the caller lacks rights; nothing was changed.
        TrafficHeldError: another rollback of the model runs.
        OutageError: traffic moved, but the origin does not answer. Run again, the rollback finishes.
        MlopsError: there is nothing to roll back to, another rollback was faster, the earlier bundle does not work, or
            a step failed. The rollback can be run again.
    """
    began = datetime.now(UTC)
    target.project.model(model)
    why = _reason(reason, "rollback")
    descriptor = known.descriptor if known is not None else target.descriptor(environment)
    facts = known.facts if known is not None else read_facts_of_traffic(target.project, descriptor, model)
    restored = facts.restored
    finish_stop = facts.stopped is not None and facts.quarantined[facts.stopped] == why
    is_finished = facts.on_trial is None and facts.served in (None, facts.live) and not finish_stop
    if restored is not None and is_finished and restored.event.reason == why and restored.event.live == facts.live:
        log(f"{model} was already rolled back for this reason; give another reason to go further back")
        return restored
    if suspect is not None and suspect not in (facts.live, facts.on_trial, facts.stopped):
        current = Ledger(descriptor, model).went_live()
        if current is not None:
            log(f"{suspect} is no longer live in {descriptor.name}; there is nothing to do")
            return current
    if automatic and not may_roll_back_automatically(facts, suspect):
        assert restored is not None
        raise MlopsError(
            f"{descriptor.name} runs a bundle that a rollback of {model} restored, because: {restored.event.reason}; "
            "an alarm cannot roll it back",
            fix="find out which of the two bundles is wrong, then run the workflow `rollback`",
        )
    _refuse_unfinished(facts, model, environment, why)
    if suspect is None and facts.on_trial is None and not finish_stop:
        _refuse_late(facts, model, environment, why, lambda: requested_at(target.project.root) or began)
    plan = plan_rollback(facts, model, environment, finish_stop=finish_stop, suspect=suspect)
    return _carry_out(target, descriptor, model, "rollback", plan, why, attribution, log)


@keep_connected()
def stop_trial(target: Target, environment: str, model: str, reason: str, attribution: Attribution, log: Log) -> Entry:
    """Stop the bundle of a model that is on trial in an environment; the live bundle stays.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        reason: recorded in the ledger, and shown when the bundle is proposed again.
        attribution: recorded in the ledger.
        log: receives progress.

    Returns:
        The ledger entry that records that the bundle was stopped.

    Raises:
        MlopsError: no bundle is on trial, or as for `roll_back`.
    """
    descriptor = target.descriptor(environment)
    target.project.model(model)
    why = _reason(reason, "stop")
    facts = read_facts_of_traffic(target.project, descriptor, model)
    _refuse_unfinished(facts, model, environment, why)
    if facts.on_trial is None and facts.stopped is None:
        raise MlopsError(
            f"no bundle of {model} is on trial in {descriptor.name}: the Rollout names {facts.served or 'none'}",
            fix="to leave the live bundle, run `mlops rollback`",
        )
    plan = plan_rollback(facts, model, environment, finish_stop=True)
    return _carry_out(target, descriptor, model, "stop", plan, why, attribution, log)


def _reason(reason: str, what: str) -> str:
    why = words(reason)
    if not why:
        raise MlopsError(f"a {what} needs a reason", fix="give a reason in words")
    return why


def _refuse_unfinished(facts: TrafficFacts, model: str, environment: str, why: str) -> None:
    """Refuse to go further back while an earlier attempt for the same reason may only lack the change of main.

    Raises:
        OutageError: that is so.
    """
    if facts.may_only_lack_main(why):
        raise OutageError(
            f"{model} in {environment}: traffic has left a bundle for this reason, but whether main names another one "
            "is not known, because the origin does not answer",
            fix=f"{AFTER_AN_OUTAGE}. To leave the live bundle too, give another reason",
        )


def _refuse_late(
    facts: TrafficFacts, model: str, environment: str, why: str, requested: Callable[[], datetime]
) -> None:
    """Refuse a rollback that waited while another one, or a stop, did what its caller may have wanted.

    Args:
        facts: the facts.
        model, environment, why: of the rollback.
        requested: returns when it was requested. Called only if that can matter.

    Raises:
        MlopsError: that is so.
    """
    if all(reason == why for reason in facts.quarantined.values()):
        return
    asked = requested()
    left = facts.left_since(asked, why)
    if left is not None:
        raise MlopsError(
            f"{model} in {environment} has left {left} since this rollback was requested at {asked:%H:%M:%S} UTC, "
            f"because: {facts.quarantined[left]}; {facts.live or 'no bundle'} is live now",
            fix="find out whether the bundle that is live now is bad too. If it is, run the workflow `rollback` again",
        )


def _carry_out(
    target: Target,
    descriptor: EnvironmentDescriptor,
    model: str,
    verb: Verb,
    plan: RollbackPlan,
    why: str,
    attribution: Attribution,
    log: Log,
) -> Entry:
    project = target.project
    log(f"stopping {plan.bad}; {plan.good} stays" if plan.is_trial else f"rolling back from {plan.bad} to {plan.good}")
    with ThreadPoolExecutor(1) as pool:  # each waits for other servers
        rights = pool.submit(check_rights, project, descriptor, model, plan.good, log)
        verified = evidence.verify_bundle(descriptor, model, plan.good, all_runs=False)
        trial = try_bundle(project, verified.manifest, verified.files, rounds=0)
        if trial.problem:
            raise MlopsError(f"the bundle to roll back to does not work: {trial.problem}", fix="release a good bundle")
        log("the earlier bundle loads, and its golden predictions match")
        rights.result()
    with hold_traffic(descriptor, model, verb, project.root, log) as hold:
        facts = read_facts_of_traffic(project, descriptor, model)
        finish_stop = plan.bad == facts.stopped
        if plan_rollback(facts, model, descriptor.name, finish_stop=finish_stop, suspect=plan.bad) != plan:
            raise MlopsError(
                f"the bundles of {model} in {descriptor.name} changed during the checks",
                fix=f"look at `mlops history {model} --env {descriptor.name}`; if what is live is bad, run it again",
            )
        quarantine(descriptor, model, Quarantined(bundle=plan.bad, reason=why, at=datetime.now(UTC)))
        log("the bad bundle is quarantined")
        if plan.is_trial and abort_rollout(descriptor.namespace, model, plan.bad):
            log("the trial is aborted")
        log(f"traffic moved in {move_traffic(descriptor, model, plan.good, check=hold.check):.2f} s")
        # What is written last shows that an interrupted command has not finished: the ledger still names the bad
        # bundle as live, or main still names the one that was on trial.
        entry = _record(descriptor, model, plan, why, attribution, verified) if plan.is_trial else None
        outage = _restore(project, model, descriptor.name, plan, why, log)
        verify(descriptor, model, plan.good, project.model(model).gates.latency.p99_ms, log)
        if outage is None:
            entry = entry or _record(descriptor, model, plan, why, attribution, verified)
        # A deployment that was applying when the traffic moved may have written the bad bundle again.
        move_traffic(descriptor, model, plan.good, check=hold.check)
    if outage is not None:
        raise OutageError(
            f"{model} in {descriptor.name} runs {plan.good}, but main still names {plan.bad}: {outage.what}",
            fix=f"{AFTER_AN_OUTAGE}, with the same reason: it finishes",
        )
    assert entry is not None
    return entry


def _restore(
    project: Project, model: str, environment: str, plan: RollbackPlan, why: str, log: Log
) -> OutageError | None:
    """Let main name the earlier bundle; return the outage that prevented it."""
    try:
        restore_release(project, model, environment, plan.good, plan.bad, why)
    except OutageError as outage:
        return outage
    log("main names the earlier bundle")
    return None


def _record(
    descriptor: EnvironmentDescriptor,
    model: str,
    plan: RollbackPlan,
    why: str,
    attribution: Attribution,
    verified: VerifiedBundle,
) -> Entry:
    """Record a rollback, or the failure of a bundle on trial."""
    ledger, attempt = Ledger(descriptor, model), new_attempt()
    commit, actor, run = attribution.commit or None, attribution.actor, attribution.run

    def stopped(head: Entry | None) -> Event | Entry:
        live = head.event.live if head is not None else None
        _refuse_other(live, plan.good, descriptor)
        if head is not None and (head.event.result, head.event.to) == ("failed", plan.bad):
            return head  # recorded before this command was interrupted
        return Event.of(
            action="promotion",
            result="failed",
            before=live,
            to=plan.bad,
            live=live,
            reason=f"stopped: {why}",
            attempt=attempt,
            commit=commit,
            actor=actor,
            run=run,
        )

    def rolled_back(head: Entry | None) -> Event | Entry:
        live = head.event.live if head is not None else None
        if head is not None and live == plan.good:
            return ledger.went_live() or head  # the deployment of the restoring commit was faster
        if not plan.is_trial:
            _refuse_other(live, plan.bad, descriptor)
        return Event.of(
            action="rollback",
            result="verified",
            before=live,
            to=plan.good,
            live=plan.good,
            reason=why,
            dataset=f"{verified.manifest.dataset.dataset}@{verified.manifest.dataset.snapshot}",
            source_commit=verified.commits[0],
            attempt=attempt,
            commit=commit,
            actor=actor,
            run=run,
        )

    head = ledger.head()
    decide: Callable[[Entry | None], Event | Entry] = rolled_back
    if plan.is_trial and head is not None and head.event.live == plan.good:
        decide = stopped
    return ledger.append(decide)


def _refuse_other(live: str | None, expected: str, descriptor: EnvironmentDescriptor) -> None:
    if live != expected:
        raise MlopsError(f"{live} went live in {descriptor.name} during the rollback", fix="look at `mlops history`")
