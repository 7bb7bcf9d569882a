"""The candidate ran long enough, and answered enough, in the environment before."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def soak(facts: Facts) -> Verdict:
    """Refuses a bundle that has not yet served, healthy, the requests and the time that its model asks for."""
    if facts.promotes_from is None:
        return passed("soak", "first", "none before", f"{facts.release.environment} is the first environment")
    if facts.policy is None:
        return inconclusive("soak", "unknown", facts.missing("policy"), "train again from main")
    rule = facts.policy.gates.soak
    threshold = f"{rule.requests} requests and {rule.seconds} s, at most {rule.maximum_error_rate:.2%} errors"
    before = facts.predecessor
    if before is None:
        return inconclusive("soak", threshold, facts.missing("predecessor"), f"make {facts.promotes_from} reachable")
    since = (facts.now - before.verified_at).total_seconds() if before.verified_at is not None else 0.0
    figure = f"{before.requests} requests, {since:.0f} s, {before.errors} errors"
    if before.errors > rule.maximum_error_rate * before.requests:
        why = f"{before.errors} of {before.requests} requests ended in an error in {before.environment}"
        return failed("soak", figure, threshold, why, "find out why before it goes on")
    if not before.live:
        why = f"{before.environment} does not serve it any more"
        return failed("soak", figure, threshold, why, "promote what runs there")
    if before.requests < rule.requests or since < rule.seconds:
        why = f"it has not served long enough in {before.environment}"
        return failed("soak", figure, threshold, why, "wait, then run the gates again")
    return passed("soak", figure, threshold, f"it served well in {before.environment}")
