"""Gate: the bundle is not quarantined."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def quarantine(facts: Facts) -> Verdict:
    """Refuse a bundle that a rollback quarantined."""
    threshold = "not quarantined"
    if facts.quarantined is None:
        return inconclusive("quarantine", threshold, facts.missing("quarantined"), "make the registry readable")
    if facts.candidate in facts.quarantined:
        why = f"it was rolled back: {facts.quarantined[facts.candidate]}"
        return failed("quarantine", "quarantined", threshold, why, "release another bundle")
    return passed("quarantine", "clear", threshold, "it was never rolled back")
