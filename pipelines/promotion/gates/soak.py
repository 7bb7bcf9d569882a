"""Gate: the candidate served long enough, and enough requests, in the previous environment."""

from __future__ import annotations

from datetime import UTC, timedelta

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts, Predecessor
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def soak(facts: Facts) -> Verdict:
    """Refuse a bundle that failed too often, or served for too short a time or too few requests."""
    if facts.promotes_from is None:
        return passed("soak", "first", "none", f"{facts.release.environment} is the first environment")
    if facts.policy is None:
        return inconclusive("soak", "unknown", facts.missing("policy"), "train again from main")
    rule = facts.policy.gates.soak
    threshold = (
        f"{counted(rule.requests, 'request')} and {rule.seconds} s, at most {rule.maximum_error_rate:.2%} errors"
    )
    before = facts.predecessor
    if before is None:
        return inconclusive("soak", threshold, facts.missing("predecessor"), f"make {facts.promotes_from} reachable")
    since = (facts.now - before.verified_at).total_seconds() if before.verified_at is not None else 0.0
    figure = f"{counted(before.requests, 'request')}, {since:.0f} s, {counted(before.errors, 'error')}"
    if before.errors > rule.maximum_error_rate * before.requests:
        why = f"{before.errors} of {before.requests} requests ended in a server error in {before.environment}"
        return failed("soak", figure, threshold, why, "find the cause before promoting it")
    if not before.live:
        why = f"{before.environment} no longer serves it"
        return failed("soak", figure, threshold, why, "promote the bundle that is live there")
    missing, left = rule.requests - before.requests, rule.seconds - since
    if missing > 0 or left > 0:
        why = f"it has not served long enough, or enough requests, in {before.environment}"
        return failed("soak", figure, threshold, why, _what_is_missing(facts, before, missing, left))
    return passed("soak", figure, threshold, f"it was healthy in {before.environment}")


def _what_is_missing(facts: Facts, before: Predecessor, missing: int, left: float) -> str:
    """Return what ends the soak: a command that sends the missing requests, and the time when it is over."""
    steps = []
    if missing > 0:
        times = f" --times {missing}" if missing > 1 else ""
        what = f"send {counted(missing, 'more request')}"
        steps.append(f"{what}: mlops predict {facts.release.model} --env {before.environment}{times}")
    if left > 0:
        over = (facts.now + timedelta(seconds=left)).astimezone(UTC) + timedelta(seconds=1)
        steps.append(f"wait until {over:%Y-%m-%d %H:%M:%S} UTC")
    return f"{'; '.join(steps)}; then run the workflow recheck, which also runs on a schedule"
