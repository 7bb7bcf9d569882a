"""Take a merged release live: judge it again, bring the bundle over, apply, roll out, verify, and only then record it.

Each step finds what an interrupted one left, so that running it again ends where an uninterrupted run would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.facts.gather import Change, gather
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.replicate import replicate
from pipelines.promotion.report import keep_report
from pipelines.promotion.verify import Verification, verify
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
        take_back: make the endpoint of a model serve the bundle that was live before, and wait until it does: the
            release that was applied did not prove itself. Doing it when that never went live changes nothing.
        say: told of each step.
    """

    apply: Callable[[], None]
    follow: Callable[[str], None]
    descriptor: Callable[[], EnvironmentDescriptor]
    take_back: Callable[[str, str], object]
    say: Say = field(default=lambda _: None)


def attempt_of(context: Context, result: str) -> str:
    """Names an attempt to deploy from a commit, and its end: running the same again is the same attempt."""
    return f"{context.commit}/{result}"


def is_recorded(head: Entry | None, release: Release) -> bool:
    """Whether the ledger says already that what a release names is live."""
    return head is not None and head.event.live == release.bundle


@dataclass(frozen=True)
class Admitted:
    """A release that may go live, or is live already.

    Attributes:
        release: it.
        recorded: the record that says that it is live; None when it is yet to go.
        live: the bundle that it would replace; None when there is none.
    """

    release: Release
    recorded: Entry | None
    live: str | None
    _told: _Told


def promote(
    project: Project,
    repository: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    context: Context,
    effects: Effects,
) -> Entry:
    """Take the release of a change live, and record how it ended: `admit`, then `take_live`.

    Where several releases are due in an environment, admit them all before the first is taken live: applying the
    environment brings all of them.

    Raises:
        MlopsError: see there.
    """
    admitted = admit(project, repository, descriptors, change, context, effects.say)
    return take_live(project, descriptors, admitted, effects)


def admit(
    project: Project,
    repository: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    context: Context,
    say: Say = lambda _: None,
) -> Admitted:
    """Judge the release of a change, unless it is live already, or goes back as a rollback asks. Nothing is applied.

    Args:
        project: the repository's declarations, as merged.
        repository: git.
        descriptors: of the environments that are up.
        change: the release, and all files of the merge.
        context: who does it.
        say: told of each step.

    Raises:
        StaleReleaseError: something else is live than the release replaces.
        RefusedError: a gate refused it, and that is recorded; or a rollback from it is under way.
        MlopsError: an environment is not up, or a registry cannot be read or written.
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
    told = _Told(release, context, ledger, descriptors[previous or release.environment])
    if head is not None and is_recorded(head, release):
        if release.bundle in blocked:
            raise RefusedError(
                f"{release.model} in {release.environment} is being rolled back: {blocked[release.bundle]}",
                fix="run the rollback again, which finishes it",
            )
        say(f"{release.model} in {release.environment} is recorded as live already")
        return Admitted(release, ledger.went_live() or head, head.event.live, told)
    refuse_stale(head, release.environment, release.model, release.bundle, release.replaces)
    if _is_restored(ledger, release, blocked):
        told = replace(told, action="rollback", reason=blocked[release.replaces or ""])
        say(f"it goes back from a quarantined bundle to {release.bundle}, which was verified here before")
    else:
        told = _judge(project, repository, descriptors, change, told, say)
    return Admitted(release, None, head.event.live if head is not None else None, told)


def take_live(
    project: Project, descriptors: Mapping[str, EnvironmentDescriptor], admitted: Admitted, effects: Effects
) -> Entry:
    """Bring the bundle over, apply, roll out, verify; and only then record it.

    Args:
        project: the repository's declarations, as merged.
        descriptors: of the environments that are up.
        admitted: the release. One that is live already is applied and verified all the same.
        effects: how the environment is changed.

    Returns:
        The ledger's entry that says the bundle is live.

    Raises:
        StaleReleaseError: something else went live meanwhile.
        MlopsError: it failed on the way; that is recorded, and traffic went back to what was live.
    """
    release, told = admitted.release, admitted._told
    assert release.bundle is not None
    if admitted.recorded is not None:
        _prove(project, release, effects)
        return admitted.recorded
    previous = project.stack(release.environment).config.environment.promotes_from
    if previous is not None:
        with _recording_failure(told):
            replicate(descriptors[previous], descriptors[release.environment], release.model, release.bundle)
        effects.say(f"the bundle is in the registry of {release.environment}")
    with _recording_failure(told, lambda: _take_back(release, admitted.live, effects)):
        proven = _prove(project, release, effects)
    effects.say(
        f"verified: {proven.rows} golden rows match, {proven.requests} requests, median {proven.median_ms:.1f} ms"
    )
    return told.record("verified", told.reason)


def _judge(
    project: Project,
    repository: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    told: _Told,
    say: Say,
) -> _Told:
    """Ask every gate; what is to be recorded of it.

    Raises:
        RefusedError: one refused, and that is recorded.
    """
    release = change.release
    facts = gather(project, repository, descriptors, change)
    verdicts = judge(facts)
    told = replace(
        told,
        verdicts={verdict.gate: verdict.outcome for verdict in verdicts},
        report=keep_report(told.ledger.descriptor, release.model, facts, verdicts),
        policy=facts.policy.digest if facts.policy else None,
    )
    say(f"{sum(v.outcome == 'pass' for v in verdicts)} of {len(verdicts)} gates pass")
    if not admits(verdicts):
        refused = [v for v in verdicts if v.outcome != "pass"]
        told.record("refused", "; ".join(f"{v.gate}: {v.why}" for v in refused))
        lines = "\n".join(f"  {v.gate}: {v.why}; {v.fix}" for v in refused)
        raise RefusedError(f"{release.model} may not go to {release.environment}:\n{lines}")
    return told


@contextmanager
def _recording_failure(told: _Told, undo: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Record that the attempt failed when the block does; `undo` comes first, and says what became of it."""
    try:
        yield
    except MlopsError as error:
        told.record("failed", error.what + undo())
        raise


def _prove(project: Project, release: Release, effects: Effects) -> Verification:
    """Apply, follow, verify."""
    assert release.bundle is not None
    effects.apply()
    effects.say("applied")
    effects.follow(release.model)
    effects.say("rolled out")
    budget = project.model(release.model).gates.latency.p99_ms
    return verify(effects.descriptor(), release.model, release.bundle, budget)


def _take_back(release: Release, live: str | None, effects: Effects) -> str:
    """Let traffic go to what was live; what became of it, to be added to the reason of the failure."""
    if live is None:
        return ""
    try:
        effects.take_back(release.model, live)
    except MlopsError as error:
        return f"; and traffic could not be taken back: {error.what}"
    effects.say(f"traffic went back to {live}")
    return ""


def refuse_stale(head: Entry | None, environment: str, model: str, bundle: str, replaces: str | None) -> None:
    """Refuse to take `bundle` live in the place of `replaces` if neither of them is.

    Raises:
        StaleReleaseError: something else is live.
    """
    live = head.event.live if head is not None else None
    if live not in (replaces, bundle):
        raise StaleReleaseError(
            f"{environment} runs {live or 'nothing'} of {model}; the release replaces {replaces or 'nothing'}",
            fix="propose the release again, against what is live",
        )


def _is_restored(ledger: Ledger, release: Release, blocked: Mapping[str, str]) -> bool:
    """Whether the release is a rollback's: from a quarantined bundle back to a good one that was verified here."""
    if release.replaces not in blocked or release.bundle in blocked:
        return False
    return any(e.event.to == release.bundle and e.event.result == "verified" for e in ledger.back())


@dataclass(frozen=True)
class _Told:
    """Everything that a record of this attempt says; `source` is the environment that the bundle comes from."""

    release: Release
    context: Context
    ledger: Ledger
    source: EnvironmentDescriptor
    action: Literal["promotion", "rollback"] = "promotion"
    reason: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    report: str | None = None
    policy: str | None = None

    def record(self, result: Literal["verified", "refused", "failed"], reason: str) -> Entry:
        """Add the record; when it was proven to serve, and the ledger says so already, find that record.

        Raises:
            StaleReleaseError: it was proven to serve, but something else went live meanwhile.
            MlopsError: the ledger cannot be written.
        """
        release, context, of_bundle = self.release, self.context, self._of_bundle()

        def event(head: Entry | None) -> Event | Entry:
            before = head.event.live if head is not None else None
            if result == "verified" and release.bundle is not None:
                if head is not None and before == release.bundle:
                    return self.ledger.went_live() or head
                refuse_stale(head, release.environment, release.model, release.bundle, release.replaces)
            return Event.of(
                attempt=attempt_of(context, result),
                action=self.action,
                result=result,
                before=before,
                to=release.bundle,
                live=release.bundle if result == "verified" else before,
                verdicts=dict(self.verdicts),
                report=self.report,
                policy=self.policy,
                commit=context.commit or None,
                pull_request=context.pull_request,
                approvers=context.approvers,
                actor=context.actor,
                run=context.run,
                reason=reason,
                **of_bundle,
            )

        return self.ledger.append(event)

    def _of_bundle(self) -> dict[str, Any]:
        """What the bundle's evidence adds, when it can be read: a refused bundle may not exist at all."""
        model, digest = self.release.model, self.release.bundle
        assert digest is not None
        try:
            verified = evidence.verify_bundle(self.source, model, digest, [])
            statements = evidence.digests_of_statements(self.source, model, digest)
        except MlopsError:
            return {}
        dataset = verified.manifest.dataset
        return {
            "dataset": f"{dataset.dataset}@{dataset.snapshot}",
            "source_commit": verified.commits[0],
            "evidence": statements,
        }
