"""Gate: the environment is not frozen."""

from __future__ import annotations

from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def freeze(facts: PinFacts) -> Verdict:
    """Refuse a pin inside a freeze window, or if the windows are unknown."""
    threshold = "no freeze"
    if facts.freezes is None:
        return inconclusive("freeze", threshold, facts.missing("freezes"), "fix the environment's configuration")
    for window in facts.freezes:
        if window.start <= facts.now < window.end:
            why = f"{facts.environment} is frozen until {window.end.isoformat()}: {window.reason}"
            return failed("freeze", "frozen", threshold, why, "wait, or remove the window in a pull request")
    return passed("freeze", "open", threshold, f"{facts.environment} is not frozen")
