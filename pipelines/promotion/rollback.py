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
from pipelines.promotion.promote import Context, Say
from pipelines.promotion.trial import try_bundle
from pipelines.promotion.verify import verify
from pipelines.registry import evidence
from pipelines.registry.ledger import Entry, Event, Ledger, new_attempt, words
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
    *,
    automatic: bool = False,
    suspect: str | None = None,
) -> Entry:
    """Roll a model back in an environment.

    Args:
        project: the repository's declarations.
        descriptor: the environment.
        model: the model.
        reason: why, in words; it is recorded, and shown to whoever proposes the bad bundle again.
        context: who does it.
        effects: how the environment and git are changed.
        automatic: an alarm asks for it, not a person. What a rollback went back to is then left alone: a monitor that
            is wrong must not walk through the history.
        suspect: the bundle that is found bad, where that is known: when another is live by now, there is nothing to do.

    Returns:
        The ledger's entry that says so.

    Raises:
        MlopsError: there is nothing to go back to, or the target does not work; or a step failed, and the rollback can
            be run again.
    """
    declared = project.model(model)
    why = words(reason)
    if not why:
        raise MlopsError("a rollback needs a reason", fix="say why, in words")
    current = Ledger(descriptor, model).went_live()
    if current is not None and current.event.action == "rollback" and current.event.reason == why:
        effects.say(f"{model} was rolled back for this reason already; another reason would go further back")
        return current
    if current is not None and suspect is not None and current.event.live != suspect:
        effects.say(f"{suspect} is not live in {descriptor.name} any more; there is nothing to do")
        return current
    if current is not None and current.event.action == "rollback" and automatic:
        raise MlopsError(
            f"{descriptor.name} runs what a rollback of {model} went back to, because: {current.event.reason}; "
            "that is not rolled back again without a person",
            fix="find out which of the two is wrong; then run `mlops rollback` yourself",
        )
    plan = plan_rollback(descriptor, model)
    effects.say(f"from {plan.bad} back to {plan.target}")
    verified = evidence.verify_bundle(descriptor, model, plan.target)
    trial = try_bundle(project, verified.manifest, verified.files)
    if trial.problem:
        raise MlopsError(f"the bundle to go back to does not work: {trial.problem}", fix="release a good bundle")
    effects.say("the target loads and predicts as it must")
    effects.move_traffic(model, plan.target)
    effects.say("traffic is restored")
    quarantine(descriptor, model, Quarantined(bundle=plan.bad, reason=why, at=datetime.now(UTC)))
    effects.say("the bad bundle is quarantined")
    effects.restore(plan)
    effects.say("git says so")
    verify(descriptor, model, plan.target, declared.gates.latency.p99_ms)
    ledger, attempt = Ledger(descriptor, model), new_attempt()

    def event(head: Entry | None) -> Event | Entry:
        live = head.event.live if head is not None else None
        if head is not None and live == plan.target:
            return ledger.went_live() or head  # the deployment of the restoring commit was faster
        if live != plan.bad:
            raise MlopsError(f"{live} went live in {descriptor.name} meanwhile", fix="look at `mlops history`")
        return Event.of(
            attempt=attempt,
            action="rollback",
            result="verified",
            before=plan.bad,
            to=plan.target,
            live=plan.target,
            commit=context.commit or None,
            actor=context.actor,
            run=context.run,
            reason=why,
            dataset=f"{verified.manifest.dataset.dataset}@{verified.manifest.dataset.snapshot}",
            source_commit=verified.commits[0],
        )

    return ledger.append(event)
