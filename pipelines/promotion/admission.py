"""Decide whether a merged release may go live. Nothing is applied here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.attempt import Attempt, Attribution, Log, refuse_stale
from pipelines.promotion.facts.gather import ReleaseChange, gather
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.report import keep_report
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.registry.ledger import Entry, Ledger


class GateRefusedError(MlopsError):
    """A gate refused a release, or the release is being rolled back."""


@dataclass(frozen=True)
class Admitted:
    """A release that may go live, or is live already.

    Attributes:
        release: the release.
        recorded: the ledger entry that records it as live; None if it is not live yet.
        live: the bundle that it replaces; None if there is none.
        attempt: records the outcome.
    """

    release: Release
    recorded: Entry | None
    live: str | None
    attempt: Attempt


def admit(
    project: Project,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    attribution: Attribution,
    log: Log,
) -> Admitted:
    """Judge the release of a change.

    A release that is already live, or that a rollback committed, is admitted without being judged again.

    Args:
        project: the declarations as merged.
        git: the clone.
        descriptors: environment → descriptor, for the environments that are up.
        change: the release, and every file of its merge.
        attribution: recorded in the ledger.
        log: receives progress.

    Raises:
        StaleReleaseError: the release replaces a bundle that is no longer live.
        GateRefusedError: a gate refused it, which is recorded; or it is being rolled back.
        MlopsError: the release names no bundle, an environment is not up, or a registry cannot be read or written.
    """
    release = change.release
    if release.bundle is None:
        raise MlopsError(f"the release of {release.model} to {release.environment} names no bundle")
    previous = project.stack(release.environment).config.environment.promotes_from
    for name in (release.environment, previous or release.environment):
        if name not in descriptors:
            raise MlopsError(f"{name} is not up", fix=f"mlops up --env {name}")
    here = descriptors[release.environment]
    ledger = Ledger(here, release.model)
    head, blocked = ledger.head(), quarantined(here, release.model)
    others = {name: descriptor for name, descriptor in descriptors.items() if name != release.environment}
    attempt = Attempt(release, attribution, ledger, descriptors[previous or release.environment], others)
    if head is not None and head.event.live == release.bundle:
        if release.bundle in blocked:
            raise GateRefusedError(
                f"{release.model} in {release.environment} is being rolled back: {blocked[release.bundle]}",
                fix="run the rollback again to finish it",
            )
        log(f"{release.model} is already recorded as live in {release.environment}")
        return Admitted(release, ledger.went_live() or head, head.event.live, attempt)
    refuse_stale(head, release.environment, release.model, release.bundle, release.replaces)
    if _restores(ledger, release, blocked):
        attempt = replace(attempt, action="rollback", reason=blocked[release.replaces or ""])
        log(f"returning from a quarantined bundle to {release.bundle}, which was verified here before")
    else:
        attempt = _judge(project, git, descriptors, change, attempt, log)
    return Admitted(release, None, head.event.live if head is not None else None, attempt)


def _judge(
    project: Project,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    attempt: Attempt,
    log: Log,
) -> Attempt:
    """Run every gate, and return the attempt with their verdicts.

    Raises:
        GateRefusedError: a gate refused the release, which is recorded.
    """
    release = change.release
    facts = gather(project, git, descriptors, change)
    verdicts = judge(facts)
    attempt = replace(
        attempt,
        verdicts={verdict.gate: verdict.outcome for verdict in verdicts},
        report=keep_report(attempt.ledger.descriptor, release.model, facts, verdicts),
        policy=facts.policy.digest if facts.policy else None,
    )
    log(f"{sum(v.outcome == 'pass' for v in verdicts)} of {len(verdicts)} gates pass")
    if not admits(verdicts):
        refused = [v for v in verdicts if v.outcome != "pass"]
        attempt.record("refused", "; ".join(f"{v.gate}: {v.why}" for v in refused))
        lines = "\n".join(f"  {v.gate}: {v.why}; {v.fix}" for v in refused)
        raise GateRefusedError(f"{release.model} may not go to {release.environment}:\n{lines}")
    return attempt


def _restores(ledger: Ledger, release: Release, blocked: Mapping[str, str]) -> bool:
    """Return whether a release goes from a quarantined bundle back to a good one that was verified here before."""
    if release.replaces not in blocked or release.bundle in blocked:
        return False
    return any(e.event.to == release.bundle and e.event.result == "verified" for e in ledger.back())
