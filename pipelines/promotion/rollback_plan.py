"""Decide which bundle a rollback returns from and to. Pure functions, and one that reads the facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.cluster.rollouts import served_bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.outages import OutageError
from pipelines.promotion.restore import released_on_main
from pipelines.registry.bundle_quarantine import read_quarantine
from pipelines.registry.ledger import Entry, Ledger


@dataclass(frozen=True)
class TrafficFacts:
    """Facts about the bundles of a model in an environment.

    Attributes:
        served: the bundle that the Rollout names; None if there is no Rollout.
        live: the bundle that the ledger records as live; None if none is.
        verified: bundles that were recorded as verified here, newest first.
        quarantined: bundle → reason.
        quarantined_at: bundle → when it was quarantined.
        restored: the newest verified record, if it is a rollback.
        declared: the bundle that main names; None if it names none, or is not known.
        knows_main: the origin answered.
    """

    served: str | None
    live: str | None
    verified: Sequence[str] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)
    quarantined_at: Mapping[str, datetime] = field(default_factory=dict)
    restored: Entry | None = None
    declared: str | None = None
    knows_main: bool = True

    @property
    def on_trial(self) -> str | None:
        """The bundle that the Rollout names but that is not recorded as live; None if there is none.

        If the live bundle is quarantined and the Rollout names an earlier one, a rollback has not finished.
        """
        if self.served in (None, self.live):
            return None
        if self.served not in self.quarantined and self.live in self.quarantined and self.served in self.verified:
            return None
        return self.served

    @property
    def stopped(self) -> str | None:
        """The bundle that was stopped while main still names it; None if there is none."""
        if self.on_trial is None and self.declared != self.live and self.declared in self.quarantined:
            return self.declared
        return None

    def left_since(self, when: datetime, reason: str) -> str | None:
        """Return a bundle that was left after a time, for another reason; None if there is none.

        Args:
            when: the time.
            reason: that of the command which asks. Its own earlier attempt does not count.
        """
        later = [digest for digest, at in self.quarantined_at.items() if at > when]
        # A rollback that was interrupted is finished some time after its quarantine.
        if self.restored is not None and self.restored.event.at > when and self.restored.event.before is not None:
            later.append(self.restored.event.before)
        return next((digest for digest in later if self.quarantined.get(digest, reason) != reason), None)

    def may_only_lack_main(self, reason: str) -> bool:
        """Return whether a bundle was left for a reason, and all that may be missing is the change of main.

        False if the origin answers, because then `declared` says so.
        """
        if self.knows_main or self.on_trial is not None:
            return False
        return any(why == reason and digest != self.live for digest, why in self.quarantined.items())


@dataclass(frozen=True)
class RollbackPlan:
    """The bundles to roll back from and to.

    Attributes:
        bad: digest of the bundle to leave: the one on trial if there is one, else the live one.
        good: digest of the last bundle before it that was verified and is not quarantined.
        is_trial: True if `bad` is on trial and another bundle is live.
    """

    bad: str
    good: str
    is_trial: bool = False


def read_facts_of_traffic(project: Project, descriptor: EnvironmentDescriptor, model: str) -> TrafficFacts:
    """Read the ledger, the quarantine, the Rollout and the release of a model. Read-only.

    An outage of the origin is a fact too, because traffic must be movable without it.

    Raises:
        MlopsError: the registry or the cluster cannot be read, or the origin refuses.
    """
    with ThreadPoolExecutor(3) as pool:  # each waits for another server
        served = pool.submit(served_bundle, descriptor.namespace, model)
        declared = pool.submit(released_on_main, project, model, descriptor.name)
        bad = pool.submit(read_quarantine, descriptor, model)
        entries = list(Ledger(descriptor, model).back())
        verified = [entry for entry in entries if entry.event.result == "verified"]
        newest = next(iter(verified), None)
        knows_main = not isinstance(declared.exception(), OutageError)
        return TrafficFacts(
            served=served.result(),
            live=entries[0].event.live if entries else None,
            verified=[entry.event.to for entry in verified],
            quarantined={digest: entry.reason for digest, entry in bad.result().items()},
            quarantined_at={digest: entry.at for digest, entry in bad.result().items()},
            restored=newest if newest is not None and newest.event.action == "rollback" else None,
            declared=declared.result() if knows_main else None,
            knows_main=knows_main,
        )


def plan_rollback(
    facts: TrafficFacts, model: str, environment: str, *, finish_stop: bool = False, suspect: str | None = None
) -> RollbackPlan:
    """Return the bundles to roll a model back from and to.

    Args:
        facts: the facts.
        model, environment: for messages.
        finish_stop: finish a stop that was interrupted, instead of leaving the live bundle.
        suspect: the bundle found bad, if known. If it is the live one, that is left, also if another one is on trial.

    Raises:
        MlopsError: nothing is live or on trial, or no other bundle was verified before.
    """
    on_trial = facts.on_trial or (facts.stopped if finish_stop else None)
    if suspect is not None and suspect == facts.live:
        on_trial = None
    bad = on_trial or facts.live
    if bad is None:
        raise MlopsError(f"{model} is not live in {environment}, so there is nothing to roll back")
    is_trial = on_trial is not None
    candidates = [facts.live, *facts.verified] if is_trial else list(facts.verified)
    for good in candidates:
        if good is not None and good != bad and good not in facts.quarantined:
            return RollbackPlan(bad, good, is_trial)
    raise MlopsError(
        f"no other bundle of {model} was ever verified in {environment}, so there is nothing to roll back to",
        fix=f"release a good bundle, or take the endpoint down: mlops withdraw {model} --env {environment}",
    )


def may_roll_back_automatically(facts: TrafficFacts, suspect: str | None) -> bool:
    """Return whether an alarm may roll back without a person.

    After a rollback it may not: a faulty monitor, false labels or changed data could otherwise walk back through the
    history. It may stop a bundle on trial, but an alarm that names the live bundle would roll back the live one.

    Args:
        facts: the facts.
        suspect: the bundle that the alarm names; None if it names none.
    """
    is_stopped = suspect is not None and suspect == facts.stopped
    stops_trial = facts.on_trial is not None and (suspect is None or suspect != facts.live)
    return facts.restored is None or stops_trial or is_stopped
