"""One attempt to take a release live, and the ledger record that it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_attempt, run_url
from pipelines.registry import evidence
from pipelines.registry.ledger import Entry, Event, Ledger, new_attempt
from pipelines.registry.ledger_witnesses import see_ledgers

Log = Callable[[str], None]
"""Receives one line of progress."""


class StaleReleaseError(MlopsError):
    """A release replaces a bundle that is no longer live."""


@dataclass(frozen=True)
class Attribution:
    """The person or app that deploys or rolls back, and the commit.

    Attributes:
        commit: the deployed commit.
        actor: login of a person or an app.
        run: URL of the workflow run; empty outside a workflow.
        pull_request: number of the pull request that merged the commit.
        approvers: logins of those who approved it.
        attempt: id of this attempt of the workflow run, or of this process.
    """

    commit: str
    actor: str = ""
    run: str = ""
    pull_request: int | None = None
    approvers: tuple[str, ...] = ()
    attempt: str = field(default_factory=lambda: run_attempt() or new_attempt())

    @classmethod
    def of_caller(cls, git: Git) -> Attribution:
        """Attribute the checked-out commit to the actor of the workflow run, or to the user of this process."""
        return cls(commit=git.head(), actor=calling_actor(), run=run_url())


def calling_actor() -> str:
    """Return the actor of the workflow run, the user of this process, or an empty string."""
    return os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or ""


@dataclass(frozen=True)
class Attempt:
    """One attempt to take a release live.

    Attributes:
        release: the release.
        attribution: who made the attempt.
        ledger: the ledger that records it.
        source: the environment that the bundle comes from.
        others: the other environments that are up; the record notes where their ledgers end.
        action: `rollback` if the release restores an earlier bundle.
        reason: why a rollback is needed; empty for a promotion.
        verdicts: gate → outcome, once judged.
        report: digest of the stored report of the gates.
        policy: digest of the gates' thresholds.
    """

    release: Release
    attribution: Attribution
    ledger: Ledger
    source: EnvironmentDescriptor
    others: Mapping[str, EnvironmentDescriptor] = field(default_factory=dict)
    action: Literal["promotion", "rollback"] = "promotion"
    reason: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    report: str | None = None
    policy: str | None = None

    def record(self, result: Literal["verified", "refused", "failed"], reason: str) -> Entry:
        """Append the outcome to the ledger.

        A `verified` bundle that the ledger already records as live is not recorded again: the existing entry is
        returned.

        Raises:
            StaleReleaseError: the bundle was verified, but another bundle went live during the attempt.
            MlopsError: the ledger cannot be written.
        """
        release, attribution, bundle_facts = self.release, self.attribution, self._describe_bundle()
        seen = see_ledgers(self.others, release.model)

        def event(head: Entry | None) -> Event | Entry:
            before = head.event.live if head is not None else None
            if result == "verified" and release.bundle is not None:
                if head is not None and before == release.bundle:
                    return self.ledger.went_live() or head
                refuse_stale(head, release.environment, release.model, release.bundle, release.replaces)
            return Event.of(
                attempt=attempt_id(attribution, result),
                action=self.action,
                result=result,
                before=before,
                to=release.bundle,
                live=release.bundle if result == "verified" else before,
                verdicts=dict(self.verdicts),
                report=self.report,
                policy=self.policy,
                commit=attribution.commit or None,
                pull_request=attribution.pull_request,
                approvers=attribution.approvers,
                actor=attribution.actor,
                run=attribution.run,
                reason=reason,
                seen=seen,
                **bundle_facts,
            )

        return self.ledger.append(event)

    def _describe_bundle(self) -> dict[str, Any]:
        """Return what the bundle's evidence adds to a record; empty if it cannot be read, as for a missing bundle."""
        model, digest = self.release.model, self.release.bundle
        assert digest is not None
        try:
            verified = evidence.verify_bundle(self.source, model, digest, [], all_runs=False)
            statements = evidence.digests_of_statements(self.source, model, digest)
        except MlopsError:
            return {}
        dataset = verified.manifest.dataset
        return {
            "dataset": f"{dataset.dataset}@{dataset.snapshot}",
            "source_commit": verified.commits[0],
            "evidence": statements,
        }


def attempt_id(attribution: Attribution, result: str) -> str:
    """Return the id under which an attempt records a result: once, even if the response to the write is lost."""
    return f"{attribution.commit}/{attribution.attempt}/{result}"


def refuse_stale(head: Entry | None, environment: str, model: str, bundle: str, replaces: str | None) -> None:
    """Refuse a release unless the bundle that it replaces, or its own, is live.

    Args:
        head: the newest ledger entry.
        environment, model: target of the release.
        bundle: the bundle of the release.
        replaces: the bundle that it replaces; None for the first release.

    Raises:
        StaleReleaseError: another bundle is live.
    """
    live = head.event.live if head is not None else None
    if live not in (replaces, bundle):
        raise StaleReleaseError(
            f"the release of {model} to {environment} is stale: it replaces {replaces or 'no bundle'}, "
            f"but {live or 'no bundle'} is live",
            fix="propose the release again, against the live bundle",
        )
