"""Gate: the candidate was verified in the previous environment."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def order(facts: Facts) -> Verdict:
    """Refuse a bundle that was never verified in the previous environment."""
    if facts.promotes_from is None:
        return passed("order", "first", "none", f"{facts.release.environment} is the first environment")
    threshold = f"verified in {facts.promotes_from}"
    before = facts.predecessor
    if before is None or before.environment != facts.promotes_from:
        fix = f"make {facts.promotes_from} reachable"
        return inconclusive("order", threshold, facts.missing("predecessor"), fix)
    if before.verified_at is None:
        why = f"it was never verified in {before.environment}"
        return failed("order", "not verified", threshold, why, f"promote it to {before.environment} first")
    when = before.verified_at.strftime("%Y-%m-%d %H:%M:%S")
    return passed("order", "verified", threshold, f"verified in {before.environment} at {when} UTC")
