"""Gate: the previous environment ran the image, and long enough."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def order(facts: PinFacts) -> Verdict:
    """Refuse an image that the previous environment did not run and verify, or not for long enough."""
    before = facts.promotes_from
    if before is None:
        return passed("order", "first", "none", f"{facts.environment} is the first environment")
    if facts.digest is None:
        return passed("order", "no image", f"verified in {before}", "no image is pinned")
    if facts.rules is None:
        why = facts.missing("rules")
        return inconclusive("order", f"verified in {before}", why, "fix the environment's configuration")
    threshold = f"verified in {before}, {facts.rules.soak_seconds} s ago"
    if "predecessor" in facts.unknown:
        return inconclusive("order", threshold, facts.missing("predecessor"), f"make {before} reachable")
    record = facts.predecessor
    ran = (before, facts.image, facts.digest)
    if record is None or (record.environment, record.image, record.digest) != ran:
        why = f"{before} never ran it"
        return failed("order", "not verified", threshold, why, f"pin it in {before} first")
    if facts.live is None:
        return inconclusive("order", threshold, facts.missing("live"), "make the environment reachable")
    if facts.image == "serving" and facts.live and not record.models:
        why = (
            f"{before} ran it without serving a bundle, and {facts.environment} serves {', '.join(sorted(facts.live))}"
        )
        return inconclusive("order", threshold, why, f"release a bundle in {before} first", "nothing served")
    since = (facts.now - record.verified_at).total_seconds()
    figure = f"{since:.0f} s ago"
    if since < facts.rules.soak_seconds:
        why = f"{before} has not run it long enough"
        return failed("order", figure, threshold, why, "wait; the gates run again on a schedule")
    why = f"verified in {before} with {counted(len(record.models), 'model')}"
    return passed("order", figure, threshold, why)
