"""Take a merged release live: judge it again, bring the bundle over, apply, roll out, verify, and only then record it.

Each step finds what an interrupted one left, so that running it again ends where an uninterrupted run would have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.promotion.endpoint import Verification, verify
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.gather import Change, gather
from pipelines.promotion.replicate import replicate
from pipelines.promotion.report import keep_report
from pipelines.promotion.repository import Repository
from pipelines.promotion.verdict import Verdict
from pipelines.registry import evidence
from pipelines.registry.ledger import Entry, Event, Ledger
from pipelines.registry.quarantine import quarantined

Say = Callable[[str], None]


class StaleReleaseError(MlopsError):
    """What the release says it replaces is no longer live."""


class RefusedError(MlopsError):
    """A gate refused the promotion."""


@dataclass(frozen=True)
class Context:
    """Who does this, and why: what a record says besides the release.

    Attributes:
        commit: that is deployed.
        actor: who, or what.
        run: the workflow run.
        pull_request: that was merged.
        approvers: who approved it.
    """

    commit: str
    actor: str = ""
    run: str = ""
    pull_request: int | None = None
    approvers: tuple[str, ...] = ()


@dataclass
class Effects:
    """What a promotion does to the world outside the registry; the command line fills it in.

    Attributes:
        apply: make the environment as the repository declares it.
        follow: wait until the newest release of a model is live, or raise.
        descriptor: the environment's descriptor, read again after `apply`.
        say: told of each step.
    """

    apply: Callable[[], None]
    follow: Callable[[str], None]
    descriptor: Callable[[], EnvironmentDescriptor]
    say: Say = field(default=lambda _: None)


def is_recorded(head: Entry | None, release: Release) -> bool:
    """Whether the ledger says already that what a release names is live."""
    return head is not None and head.event.live == release.bundle and head.event.result == "verified"


def attempt_of(release: Release, context: Context) -> str:
    """Names the attempt to deploy a release from a commit: running the same again is the same attempt."""
    return f"{context.commit}/{release.environment}/{release.model}"


def promote(
    project: Project,
    repository: Repository,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    context: Context,
    effects: Effects,
) -> Entry:
    """Take the release of a change live, and record how it ended.

    Args:
        project: the repository's declarations, as merged.
        repository: git.
        descriptors: of the environments that are up.
        change: the release, and all files of the merge.
        context: who does it.
        effects: how the environment is changed.

    Returns:
        The ledger's entry that says the bundle is live.

    Raises:
        StaleReleaseError: something else is live than the release replaces.
        RefusedError: a gate refused it; that is recorded.
        MlopsError: it failed on the way; that is recorded, and traffic stayed with what was live.
    """
    release = change.release
    assert release.bundle is not None
    here = descriptors[release.environment]
    ledger = Ledger(here, release.model)
    head = ledger.head()
    if head is not None and is_recorded(head, release):
        effects.say(f"{release.model} in {release.environment} is recorded as live already")
        effects.apply()
        return head
    _refuse_stale(head, release)
    restoring = _is_restored(here, ledger, release)
    facts: Facts | None = None
    verdicts: tuple[Verdict, ...] = ()
    report: str | None = None
    if not restoring:
        facts = gather(project, repository, descriptors, change)
        verdicts = judge(facts)
        report = keep_report(here, release.model, facts, verdicts)
        effects.say(f"{sum(v.outcome == 'pass' for v in verdicts)} of {len(verdicts)} gates pass")
    told = _Told(release, context, facts, verdicts, report, ledger, here)
    if not restoring and not admits(verdicts):
        refused = [v for v in verdicts if v.outcome != "pass"]
        told.record("refused", "; ".join(f"{v.gate}: {v.why}" for v in refused))
        lines = "\n".join(f"  {v.gate}: {v.why}; {v.fix}" for v in refused)
        raise RefusedError(f"{release.model} may not go to {release.environment}:\n{lines}")
    try:
        proven = _take_live(project, descriptors, release, effects)
    except MlopsError as error:
        told.record("failed", error.what)
        raise
    effects.say(
        f"verified: {proven.rows} golden rows match, {proven.requests} requests, median {proven.median_ms:.1f} ms"
    )
    return told.record("verified", "")


def _take_live(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], release: Release, effects: Effects
) -> Verification:
    previous = project.stack(release.environment).config.environment.promotes_from
    assert release.bundle is not None
    if previous is not None:
        replicate(descriptors[previous], descriptors[release.environment], release.model, release.bundle)
        effects.say(f"the bundle is in the registry of {release.environment}")
    effects.apply()
    effects.say("applied")
    effects.follow(release.model)
    effects.say("rolled out")
    budget = project.model(release.model).gates.latency.p99_ms
    return verify(effects.descriptor(), release.model, release.bundle, budget)


def _refuse_stale(head: Entry | None, release: Release) -> None:
    live = head.event.live if head is not None else None
    if live not in (release.replaces, release.bundle):
        raise StaleReleaseError(
            f"{release.environment} runs {live or 'nothing'} of {release.model}; the release replaces "
            f"{release.replaces or 'nothing'}",
            fix="propose the release again, against what is live",
        )


def _is_restored(here: EnvironmentDescriptor, ledger: Ledger, release: Release) -> bool:
    """Whether the release goes back from a quarantined bundle to one that was verified here: a rollback's commit."""
    if release.replaces is None or release.replaces not in quarantined(here, release.model):
        return False
    return any(e.event.to == release.bundle and e.event.result == "verified" for e in ledger.back())


@dataclass(frozen=True)
class _Told:
    """Everything that a record of this attempt says."""

    release: Release
    context: Context
    facts: Facts | None
    verdicts: Sequence[Verdict]
    report: str | None
    ledger: Ledger
    here: EnvironmentDescriptor

    def record(self, result: str, reason: str) -> Entry:
        return self.ledger.append(lambda head: self._event(head, result, reason))

    def _event(self, head: Entry | None, result: str, reason: str) -> Event:
        if result == "verified" and not is_recorded(head, self.release):
            _refuse_stale(head, self.release)
        before = head.event.live if head is not None else None
        live = self.release.bundle if result == "verified" else before
        value = {
            "attempt": f"{attempt_of(self.release, self.context)}/{result}",
            "at": datetime.now(UTC).isoformat(),
            "action": "promotion",
            "result": result,
            "before": before,
            "to": self.release.bundle,
            "live": live,
            "verdicts": {verdict.gate: verdict.outcome for verdict in self.verdicts},
            "report": self.report,
            "policy": self.facts.policy.digest if self.facts and self.facts.policy else None,
            "commit": self.context.commit,
            "pull_request": self.context.pull_request,
            "approvers": list(self.context.approvers[:10]),
            "actor": self.context.actor[:64],
            "run": self.context.run[:128],
            "reason": reason[:400],
            **self._of_bundle(),
        }
        return event_of(value)

    def _of_bundle(self) -> dict[str, object]:
        """What the bundle's evidence adds, when it can be read: a refused bundle may not exist at all."""
        assert self.release.bundle is not None
        try:
            verified = evidence.verify_bundle(self.here, self.release.model, self.release.bundle, [])
            statements = evidence.digests_of_statements(self.here, self.release.model, self.release.bundle)
        except MlopsError:
            return {}
        dataset = verified.manifest.dataset
        return {
            "dataset": f"{dataset.dataset}@{dataset.snapshot}",
            "source_commit": verified.commits[0],
            "evidence": statements,
        }


def event_of(value: Mapping[str, object]) -> Event:
    """An event from plain values."""
    return Event.model_validate_json(json.dumps(value))
