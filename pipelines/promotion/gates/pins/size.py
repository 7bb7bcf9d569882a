"""Gate: the image is not larger than the environment allows."""

from __future__ import annotations

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed

MEGABYTE = 1_000_000


def size(facts: PinFacts) -> Verdict:
    """Refuse an image that would take nodes too long to pull."""
    if facts.rules is None:
        return inconclusive("size", "unknown", facts.missing("rules"), "fix the environment's configuration")
    bound: int = getattr(facts.rules.largest_mb, facts.image)
    threshold = f"{bound} MB compressed"
    if facts.digest is None:
        return passed("size", "no image", threshold, "no image is pinned")
    if not facts.sizes:
        return inconclusive("size", threshold, facts.missing("sizes"), "make the image repository readable")
    architecture, largest = max(facts.sizes.items(), key=lambda item: (item[1], item[0]))
    figure = f"{largest / MEGABYTE:.0f} MB"
    if largest > bound * MEGABYTE:
        why = f"the image for {architecture} has {largest:,} bytes"
        fix = "remove packages from its requirements, or change largest_mb in a pull request"
        return failed("size", figure, threshold, why, fix)
    return passed("size", figure, threshold, f"the largest is that for {architecture}")
