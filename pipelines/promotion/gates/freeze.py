"""Nothing is promoted while the environment is frozen."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def freeze(facts: Facts) -> Verdict:
    """Refuses a promotion inside a freeze window, and one for which the windows are not known."""
    threshold = "outside every freeze"
    if facts.freezes is None:
        return inconclusive("freeze", threshold, facts.missing("freezes"), "correct the environment's configuration")
    for window in facts.freezes:
        if window.start <= facts.now < window.end:
            why = f"{facts.release.environment} is frozen until {window.end.isoformat()}: {window.reason}"
            return failed("freeze", "frozen", threshold, why, "wait until then, or remove the window by a pull request")
    return passed("freeze", "open", threshold, f"{facts.release.environment} is not frozen")
