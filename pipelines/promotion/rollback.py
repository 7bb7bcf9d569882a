"""Roll back to the bundle that was live before: traffic first, in seconds, then git, then the ledger.

The ledger decides where a rollback goes and is written last, so an interrupted rollback can be run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.attempt import Attribution, Log
from pipelines.promotion.restore import restore_release
from pipelines.promotion.traffic import move_traffic
from pipelines.promotion.trial import try_bundle
from pipelines.promotion.verify import verify
from pipelines.registry import evidence
from pipelines.registry.bundle_quarantine import Quarantined, quarantine, quarantined
from pipelines.registry.ledger import Entry, Event, Ledger, new_attempt, words
from pipelines.targets import Target


@dataclass(frozen=True)
class RollbackPlan:
    """The bundles to roll back from and to.

    Attributes:
        bad: digest of the live bundle.
        good: digest of the last bundle before it that was verified and is not quarantined.
    """

    bad: str
    good: str


def plan_rollback(descriptor: EnvironmentDescriptor, model: str) -> RollbackPlan:
    """Return the bundles to roll a model back from and to.

    Raises:
        MlopsError: nothing is live, or no other bundle was verified before.
    """
    ledger = Ledger(descriptor, model)
    head = ledger.head()
    if head is None or head.event.live is None:
        raise MlopsError(f"{model} is not live in {descriptor.name}, so there is nothing to roll back")
    bad = head.event.live
    blocked = quarantined(descriptor, model)
    for entry in ledger.back():
        event = entry.event
        if event.result == "verified" and event.to != bad and event.to not in blocked:
            return RollbackPlan(bad, event.to)
    raise MlopsError(
        f"no other bundle of {model} was ever verified in {descriptor.name}, so there is nothing to roll back to",
        fix="release a good bundle, or take the endpoint down with a release that names no bundle",
    )


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
) -> Entry:
    """Roll a model back in an environment.

    Args:
        target: where the environment lives.
        environment: its name.
        model: the model's name.
        reason: recorded in the ledger, and shown when the bad bundle is proposed again.
        attribution: recorded in the ledger.
        log: receives progress.
        automatic: an alarm requested the rollback. It then leaves a bundle alone that a rollback restored, so that a
            faulty monitor cannot walk back through the history.
        suspect: the bundle found bad, if known. If another bundle is live by now, nothing is done.

    Returns:
        The ledger entry that records the rollback.

    Raises:
        MlopsError: there is nothing to roll back to, the earlier bundle does not work, or a step failed. The rollback
            can be run again.
    """
    descriptor = target.descriptor(environment)
    declared = target.project.model(model)
    why = words(reason)
    if not why:
        raise MlopsError("a rollback needs a reason", fix="give a reason in words")
    current = Ledger(descriptor, model).went_live()
    if current is not None and current.event.action == "rollback" and current.event.reason == why:
        log(f"{model} was already rolled back for this reason; give another reason to go further back")
        return current
    if current is not None and suspect is not None and current.event.live != suspect:
        log(f"{suspect} is no longer live in {descriptor.name}; there is nothing to do")
        return current
    if current is not None and current.event.action == "rollback" and automatic:
        raise MlopsError(
            f"{descriptor.name} runs a bundle that a rollback of {model} restored, because: {current.event.reason}; "
            "an alarm cannot roll that back",
            fix="find out which of the two bundles is wrong, then run `mlops rollback` yourself",
        )
    plan = plan_rollback(descriptor, model)
    log(f"rolling back from {plan.bad} to {plan.good}")
    verified = evidence.verify_bundle(descriptor, model, plan.good)
    trial = try_bundle(target.project, verified.manifest, verified.files)
    if trial.problem:
        raise MlopsError(f"the bundle to roll back to does not work: {trial.problem}", fix="release a good bundle")
    log("the earlier bundle loads, and its golden predictions match")
    log(f"traffic moved in {move_traffic(descriptor, model, plan.good):.2f} s")
    quarantine(descriptor, model, Quarantined(bundle=plan.bad, reason=why, at=datetime.now(UTC)))
    log("the bad bundle is quarantined")
    restore_release(target.project, model, environment, plan.good, plan.bad, reason)
    log("main names the earlier bundle")
    verify(descriptor, model, plan.good, declared.gates.latency.p99_ms, log)
    ledger, attempt = Ledger(descriptor, model), new_attempt()

    def event(head: Entry | None) -> Event | Entry:
        live = head.event.live if head is not None else None
        if head is not None and live == plan.good:
            return ledger.went_live() or head  # the deployment of the restoring commit was faster
        if live != plan.bad:
            raise MlopsError(
                f"{live} went live in {descriptor.name} during the rollback", fix="look at `mlops history`"
            )
        return Event.of(
            attempt=attempt,
            action="rollback",
            result="verified",
            before=plan.bad,
            to=plan.good,
            live=plan.good,
            commit=attribution.commit or None,
            actor=attribution.actor,
            run=attribution.run,
            reason=why,
            dataset=f"{verified.manifest.dataset.dataset}@{verified.manifest.dataset.snapshot}",
            source_commit=verified.commits[0],
        )

    return ledger.append(event)
