"""Gate: the environment is not frozen."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def freeze(facts: Facts) -> Verdict:
    """Refuse a promotion inside a freeze window, or if the windows are unknown."""
    threshold = "no freeze"
    if facts.freezes is None:
        return inconclusive("freeze", threshold, facts.missing("freezes"), "fix the environment's configuration")
    for window in facts.freezes:
        if window.start <= facts.now < window.end:
            why = f"{facts.release.environment} is frozen until {window.end.isoformat()}: {window.reason}"
            return failed("freeze", "frozen", threshold, why, "wait, or remove the window in a pull request")
    return passed("freeze", "open", threshold, f"{facts.release.environment} is not frozen")
