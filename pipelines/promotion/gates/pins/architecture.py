"""Gate: the image runs on the processors of the environment's nodes."""

from __future__ import annotations

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def architecture(facts: PinFacts) -> Verdict:
    """Refuse an image that was not built for every architecture that the environment selects."""
    threshold = ", ".join(facts.architectures)
    if facts.digest is None:
        return passed("architecture", "no image", threshold, "no image is pinned")
    if facts.sizes is None:
        return inconclusive("architecture", threshold, facts.missing("sizes"), "make the image repository readable")
    built = ", ".join(sorted(facts.sizes)) or "none"
    lacking = sorted(set(facts.architectures) - set(facts.sizes))
    if lacking:
        why = f"it was not built for {', '.join(lacking)}, which {facts.environment} selects"
        fix = "merge `architectures` first, then run the workflow `images`"
        return failed("architecture", built, threshold, why, fix)
    return passed("architecture", built, threshold, f"{facts.environment} selects {threshold}")
