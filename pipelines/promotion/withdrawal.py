"""Withdraw a model from an environment: judge it, and record it once its endpoint is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lightkube.core.exceptions import ApiError

from pipelines.cluster.connection import connect, read_with_retry
from pipelines.cluster.rollouts import Rollout
from pipelines.declarations.environment import EnvironmentDescriptor, FreezeWindow
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.live_models import WITHDRAW
from pipelines.declarations.markdown import short_digest
from pipelines.declarations.release import Release
from pipelines.promotion.attempt import Attribution, attempt_id
from pipelines.promotion.live_bundles import live_bundle
from pipelines.promotion.verdict import Verdict, failed, passed
from pipelines.registry.ledger import Entry, Event, Ledger


@dataclass(frozen=True)
class WithdrawalFacts:
    """Facts of a withdrawal.

    Attributes:
        release: the release file after the change; it names no bundle, and `replaces` what it withdraws.
        changed_files: every file that the pull request changes.
        live: the bundle that is live; None if none is.
        freezes: windows during which the environment does not change.
        now: when the facts were gathered.
    """

    release: Release
    changed_files: tuple[str, ...]
    live: str | None
    freezes: tuple[FreezeWindow, ...]
    now: datetime


def judge_withdrawal(facts: WithdrawalFacts) -> tuple[Verdict, ...]:
    """Return the verdicts on a withdrawal: it is alone, withdraws what is live, and the environment is not frozen."""
    return only_release_file(facts.release, facts.changed_files), _freshness(facts), _freeze(facts)


def only_release_file(release: Release, changed_files: Sequence[str]) -> Verdict:
    """Refuse a change of a release file that changes other files, too."""
    path = f"models/{release.model}/releases/{release.environment}.yaml"
    others = sorted(set(changed_files) - {path})
    if not others:
        return passed("scope", "1 file", "1 release file", f"only {path} changes")
    why = f"it also changes {', '.join(others[:5])}{' …' if len(others) > 5 else ''}"
    fix = "propose the other changes in a separate pull request"
    return failed("scope", f"{len(others) + 1} files", "1 release file", why, fix)


def _freshness(facts: WithdrawalFacts) -> Verdict:
    withdrawn, live = short_digest(facts.release.replaces), short_digest(facts.live)
    if facts.live in (None, facts.release.replaces):
        return passed("freshness", live, withdrawn, f"withdraws {withdrawn}, {live} is live")
    where = f"{facts.release.model} --env {facts.release.environment}"
    why = f"it withdraws {withdrawn}, but {live} is live in {facts.release.environment}"
    return failed("freshness", live, withdrawn, why, f"merge main, then run mlops withdraw {where} again")


def _freeze(facts: WithdrawalFacts) -> Verdict:
    window = _open_window(facts.freezes, facts.now)
    if window is not None:
        why = f"{facts.release.environment} is frozen until {window.end.isoformat()}: {window.reason}"
        return failed("freeze", "frozen", "no freeze", why, _WAIT)
    return passed("freeze", "open", "no freeze", f"{facts.release.environment} is not frozen")


_WAIT = "wait, or remove the window in a pull request"


def _open_window(freezes: Sequence[FreezeWindow], now: datetime) -> FreezeWindow | None:
    """Return the window that is open at a time; None if there is none."""
    return next((window for window in freezes if window.start <= now < window.end), None)


def refuse_unannounced_removal(model: str, environment: str, live: str | None, *, removed: bool) -> None:
    """Refuse a change that would remove a live model without a withdrawal.

    Args:
        model, environment: of the release file.
        live: the bundle that is live there; None if none is.
        removed: the release file is removed; otherwise it names no bundle and withdraws none.

    Raises:
        MlopsError: a bundle is live.
    """
    if live is None:
        return
    what = "is removed" if removed else "names no bundle"
    raise MlopsError(
        f"models/{model}/releases/{environment}.yaml {what}, but {model} is live in {environment} with {live}: "
        "expected it to be withdrawn",
        fix=f"withdraw it first, in a separate pull request: mlops withdraw {model} --env {environment} ({WITHDRAW})",
    )


def check_withdrawal(
    descriptor: EnvironmentDescriptor, release: Release, freezes: Sequence[FreezeWindow], now: datetime
) -> None:
    """Check that a release without a bundle removes only the bundle that it names, and not in a freeze.

    The gates judged it on the pull request, which may have been merged later.

    Args:
        descriptor: the environment.
        release: names no bundle.
        freezes: windows during which the environment does not change.
        now: the present time.

    Raises:
        MlopsError: a bundle is live that the release does not withdraw, the environment is frozen, or the ledger
            cannot be read.
    """
    live = live_bundle({descriptor.name: descriptor}, descriptor.name, release.model)
    if release.replaces is None:
        refuse_unannounced_removal(release.model, descriptor.name, live, removed=False)
    elif live not in (None, release.replaces):
        raise _stale(release, descriptor.name, live)
    window = _open_window(freezes, now) if live is not None else None
    if window is not None:
        raise MlopsError(
            f"{release.model} may not be withdrawn from {descriptor.name} now: it is frozen until "
            f"{window.end.isoformat()}: {window.reason}",
            fix=f"{_WAIT}, then run the workflow deploy",
        )


def _stale(release: Release, environment: str, live: str | None) -> MlopsError:
    return MlopsError(
        f"the withdrawal of {release.model} from {environment} is stale: it withdraws {release.replaces}, but {live} "
        "is live",
        fix=f"mlops withdraw {release.model} --env {environment}, and propose the change",
    )


def record_withdrawal(descriptor: EnvironmentDescriptor, release: Release, attribution: Attribution) -> Entry | None:
    """Record that a model is withdrawn, after the program was applied. Idempotent.

    Args:
        descriptor: the environment.
        release: names no bundle, and `replaces` what it withdraws.
        attribution: who withdraws it, and the commit.

    Returns:
        The ledger entry; None if nothing was live.

    Raises:
        MlopsError: another bundle is live, the Rollout still exists, or the ledger cannot be written.
    """
    ledger = Ledger(descriptor, release.model)
    head = ledger.head()
    if head is None or head.event.live is None:
        return None
    check_gone(descriptor.namespace, release.model)

    def event(newest: Entry | None) -> Event | Entry:
        live = newest.event.live if newest is not None else None
        if newest is not None and live is None:
            return newest
        if live != release.replaces:
            raise _stale(release, descriptor.name, live)
        return Event.of(
            attempt=attempt_id(attribution, "withdrawn"),
            action="withdrawal",
            result="withdrawn",
            before=live,
            to=live,
            live=None,
            commit=attribution.commit or None,
            pull_request=attribution.pull_request,
            approvers=attribution.approvers,
            actor=attribution.actor,
            run=attribution.run,
        )

    return ledger.append(event)


def check_gone(namespace: str, model: str) -> None:
    """Check that the Rollout of a model is gone.

    Raises:
        MlopsError: it exists, or the cluster cannot be asked.
    """
    with connect(namespace) as client:
        try:
            found = read_with_retry(lambda: client.get(Rollout, model))
        except ApiError as error:
            if error.status.code != 404:
                raise
            return
    if found.metadata is not None and found.metadata.deletionTimestamp is not None:
        return
    raise MlopsError(
        f"the rollout {model} still exists in {namespace}: expected it to be removed by the program",
        fix="run the deployment again, and see what the update says about it",
    )
