"""Go back to the bundle that was live before: traffic first, in seconds, then the commit that makes git say so.

Interrupted at any point, running it again finishes it: what it decides on, the ledger, is written last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.endpoint import verify
from pipelines.promotion.promote import Context, Say, event_of
from pipelines.promotion.trial import try_bundle
from pipelines.registry import evidence
from pipelines.registry.ledger import LARGEST_REASON, Entry, Event, Ledger, new_attempt
from pipelines.registry.quarantine import Quarantined, quarantine, quarantined


@dataclass(frozen=True)
class Plan:
    """What a rollback goes from and to.

    Attributes:
        bad: the bundle that is live.
        target: the last bundle before it that was verified and is not quarantined.
    """

    bad: str
    target: str


@dataclass
class Effects:
    """What a rollback does to the world outside the registry; the command line fills it in.

    Attributes:
        move_traffic: make the endpoint of a model serve a bundle, and wait until it does.
        restore: commit the release file that names the target, and what it replaces.
        say: told of each step.
    """

    move_traffic: Callable[[str, str], None]
    restore: Callable[[Plan], None]
    say: Say = field(default=lambda _: None)


def plan_rollback(descriptor: EnvironmentDescriptor, model: str) -> Plan:
    """What a rollback of a model would go back to.

    Raises:
        MlopsError: nothing is live, or nothing verified came before it.
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
            return Plan(bad, event.to)
    raise MlopsError(
        f"no other bundle of {model} was ever verified in {descriptor.name}, so there is nothing to go back to",
        fix="release a good bundle, or take the endpoint down by a release without a bundle",
    )


def roll_back(
    project: Project,
    descriptor: EnvironmentDescriptor,
    model: str,
    reason: str,
    context: Context,
    effects: Effects,
) -> Entry:
    """Roll a model back in an environment.

    Args:
        project: the repository's declarations.
        descriptor: the environment.
        model: the model.
        reason: why, in words; it is recorded, and shown to whoever proposes the bad bundle again.
        context: who does it.
        effects: how the environment and git are changed.

    Returns:
        The ledger's entry that says so.

    Raises:
        MlopsError: there is nothing to go back to, or the target does not work; or a step failed, and the rollback can
            be run again.
    """
    declared = project.model(model)
    head = Ledger(descriptor, model).head()
    if head is not None and head.event.action == "rollback" and head.event.reason == reason[:LARGEST_REASON]:
        effects.say(f"{model} was rolled back for this reason already; another reason would go further back")
        return head
    plan = plan_rollback(descriptor, model)
    effects.say(f"from {plan.bad} back to {plan.target}")
    verified = evidence.verify_bundle(descriptor, model, plan.target)
    trial = try_bundle(project, verified.manifest, verified.files)
    if trial.problem:
        raise MlopsError(f"the bundle to go back to does not work: {trial.problem}", fix="release a good bundle")
    effects.say("the target loads and predicts as it must")
    effects.move_traffic(model, plan.target)
    effects.say("traffic is restored")
    now = datetime.now(UTC)
    quarantine(descriptor, model, Quarantined(bundle=plan.bad, reason=reason, at=now))
    effects.say("the bad bundle is quarantined")
    effects.restore(plan)
    effects.say("git says so")
    verify(descriptor, model, plan.target, declared.gates.latency.p99_ms)
    attempt = new_attempt()

    def event(head: Entry | None) -> Event:
        live = head.event.live if head is not None else None
        if live not in (plan.bad, plan.target):
            raise MlopsError(f"{live} went live in {descriptor.name} meanwhile", fix="look at `mlops history`")
        return event_of(
            {
                "attempt": attempt,
                "at": datetime.now(UTC).isoformat(),
                "action": "rollback",
                "result": "verified",
                "before": plan.bad,
                "to": plan.target,
                "live": plan.target,
                "commit": context.commit or None,
                "actor": context.actor[:64],
                "run": context.run[:128],
                "reason": reason[:LARGEST_REASON],
                "dataset": f"{verified.manifest.dataset.dataset}@{verified.manifest.dataset.snapshot}",
                "source_commit": verified.commits[0],
            }
        )

    return Ledger(descriptor, model).append(event)
