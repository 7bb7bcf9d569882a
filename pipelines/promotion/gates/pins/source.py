"""Gate: the image was built from a commit on main."""

from __future__ import annotations

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def source(facts: PinFacts) -> Verdict:
    """Refuse an image that does not exist, or whose content is not that of a commit on main."""
    threshold = "built from main"
    build = "pin what the workflow `images` built"
    if facts.digest is None:
        if facts.live is None:
            return inconclusive("source", threshold, facts.missing("live"), "make the environment reachable")
        if facts.image == "serving" and facts.live:
            why = f"{facts.environment} serves {', '.join(sorted(facts.live))}, which need an image"
            return failed("source", "no image", threshold, why, "withdraw the releases first")
        return passed("source", "no image", threshold, f"nothing in {facts.environment} needs the image")
    if facts.origin is None:
        return inconclusive("source", threshold, facts.missing("origin"), build)
    origin = facts.origin
    if origin.commit is None or origin.key is None:
        return failed("source", "unknown", threshold, "no tag of the image names its commit and its content", build)
    if not origin.on_main:
        why = f"main does not contain {origin.commit[:12]}, from which it was built"
        return failed("source", "not on main", threshold, why, "merge the code first, then build")
    if origin.key != origin.expected:
        why = f"the files of {origin.commit[:12]} are not those that the tag of the image names"
        return failed("source", "other content", threshold, why, build)
    return passed("source", origin.commit[:12], threshold, f"built from {origin.commit[:12]}, which is on main")
