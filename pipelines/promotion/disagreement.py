"""Explain why git, the ledger and the served bundle disagree, and how to bring them into agreement."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.registry.ledger import Entry

SYNC = "docs/on-call.md#bring-git-and-an-environment-into-agreement"


def explain_bundle(
    entries: Iterable[Entry], model: str, environment: str, wanted: str | None, served: str
) -> tuple[str, str]:
    """Return why an endpoint serves another bundle than git names, and what to do.

    Args:
        entries: the ledger, newest entry first.
        model, environment: of the release.
        wanted: the bundle that git names; None if it names none.
        served: what the endpoint serves, in words.
    """
    read = list(until_live(entries))
    live = read[0].event.live if read else None
    agree = f"release another bundle, or run mlops propose {model} --env {environment} --live ({SYNC})"
    if wanted is not None and (why := explain_attempt(read, wanted)):
        return why, agree
    if served != (live or "") and not explain_attempt(read, served):
        return f"the ledger records {live or 'no bundle'} as live", f"find out who changed it ({SYNC})"
    if wanted is None and live is not None:
        return "no withdrawal is recorded", f"run mlops withdraw {model} --env {environment}, or {agree}"
    return f"no deployment of {wanted or 'the change'} is recorded", f"run the workflow deploy for {environment}"


def explain_attempt(entries: Iterable[Entry], bundle: str) -> str:
    """Return how the last deployment of a bundle ended, if it did not go live; empty otherwise.

    Args:
        entries: the ledger, newest entry first.
        bundle: digest of the bundle.
    """
    for entry in until_live(entries):
        event = entry.event
        if event.to == bundle and event.result in ("refused", "failed"):
            ended = f"was refused by {event.reason}" if event.result == "refused" else f"failed: {event.reason}"
            return f"its deployment of {entry.at:%Y-%m-%d %H:%M} UTC {ended} (record {entry.record.number})"
    return ""


def explain_unrecorded(entries: Iterable[Entry], bundle: str) -> str:
    """Return why the ledger does not record a bundle as live that git names and the endpoint serves; empty if it does.

    Args:
        entries: the ledger, newest entry first.
        bundle: digest of the bundle.
    """
    read = list(until_live(entries))
    live = read[0].event.live if read else None
    if live == bundle:
        return ""
    why = explain_attempt(read, bundle) or "no deployment of it is recorded"
    return f"the ledger records {live or 'no bundle'} as live; {why}"


def explain_drift(entries: Iterable[Entry], model: str) -> str:
    """Return why the state of a model's Rollout may differ from the cluster; empty if the ledger gives no reason.

    A rollback, and a deployment that failed, move traffic without Pulumi. The next deployment updates the state.

    Args:
        entries: the ledger, newest entry first.
        model: the model's name.
    """
    for entry in until_live(entries):
        event, when = entry.event, f"record {entry.record.number} of {entry.at:%Y-%m-%d %H:%M} UTC"
        if event.action == "rollback" and event.result == "verified":
            return f"{model}: a rollback moved traffic ({when}); the next deployment updates the state of its Rollout"
        if event.result == "failed" and event.live is not None:
            return f"{model}: a deployment failed ({when}); the next one updates the state of its Rollout"
    return ""


def until_live(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Yield ledger entries, newest first, back to the one that says what is live."""
    for entry in entries:
        yield entry
        if entry.event.result in ("verified", "withdrawn"):
            return
