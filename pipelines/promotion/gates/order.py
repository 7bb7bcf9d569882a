"""The candidate was verified in the environment before."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def order(facts: Facts) -> Verdict:
    """Refuses a bundle that was not verified in the environment that this one promotes from."""
    if facts.promotes_from is None:
        return passed("order", "first", "none before", f"{facts.release.environment} is the first environment")
    threshold = f"verified in {facts.promotes_from}"
    before = facts.predecessor
    if before is None or before.environment != facts.promotes_from:
        fix = f"make sure that {facts.promotes_from} can be reached"
        return inconclusive("order", threshold, facts.missing("predecessor"), fix)
    if before.verified_at is None:
        why = f"it was never verified in {before.environment}"
        return failed("order", "not verified", threshold, why, f"promote it to {before.environment} first")
    when = before.verified_at.strftime("%Y-%m-%d %H:%M:%S")
    return passed("order", "verified", threshold, f"verified in {before.environment} at {when} UTC")
