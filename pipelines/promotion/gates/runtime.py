"""Gate: the bundle works in the serving runtime, within its latency budget."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed

FEWEST_REQUESTS = 100
"""With fewer requests, the 99th percentile is the maximum."""


def runtime(facts: Facts) -> Verdict:
    """Refuse a bundle that does not load, misses a golden prediction, or exceeds its latency budget."""
    if facts.policy is None:
        return inconclusive("runtime", "unknown", facts.missing("policy"), "train again from main")
    budget = facts.policy.gates.latency.p99_ms
    threshold = f"golden predictions match; p99 ≤ {budget:g} ms"
    found = facts.runtime
    if found is None:
        return inconclusive("runtime", threshold, facts.missing("runtime"), "make the bundle readable")
    if found.version != found.serving_version:
        why = f"tested in {found.version}; expected {found.serving_version}, as in the serving image"
        return inconclusive("runtime", threshold, why, "install that version: make setup", found.version)
    if found.problem:
        fix = "export the model again"
        if found.interrupted:
            fix = "export a smaller model; each run of the gates tries again"
        return failed("runtime", "does not work", threshold, found.problem, fix, measured=found.interrupted)
    if found.golden_rows == 0:
        return inconclusive(
            "runtime", threshold, "the bundle has no golden predictions", "train again", "0 golden rows"
        )
    if found.requests < FEWEST_REQUESTS:
        why = f"{counted(found.requests, 'timed request')}; expected at least {FEWEST_REQUESTS}"
        return inconclusive("runtime", threshold, why, "run the gates again", counted(found.requests, "request"))
    figure = f"p99 {found.p99_ms:.2g} ms"
    if found.p99_ms > budget:
        why = f"the slowest 1% of requests take {found.p99_ms:.3g} ms of CPU time or more"
        fix = "make the model smaller, or change the budget in a pull request; each run of the gates measures again"
        return failed("runtime", figure, threshold, why, fix, measured=True)
    return passed("runtime", figure, threshold, f"{counted(found.golden_rows, 'golden row')} match in {found.version}")
