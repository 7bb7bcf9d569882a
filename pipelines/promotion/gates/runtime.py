"""The bundle works in the runtime that will serve it, and fast enough."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed

FEWEST_REQUESTS = 100
"""A 99th percentile of fewer is the maximum."""


def runtime(facts: Facts) -> Verdict:
    """Refuses a bundle that does not load, misses a golden prediction, or is over its latency budget."""
    if facts.policy is None:
        return inconclusive("runtime", "unknown", facts.missing("policy"), "train again from main")
    budget = facts.policy.gates.latency.p99_ms
    threshold = f"golden predictions match; p99 ≤ {budget:g} ms"
    found = facts.runtime
    if found is None:
        return inconclusive(
            "runtime", threshold, facts.missing("runtime"), "run the gates where the bundle can be read"
        )
    if found.version != found.serving_version:
        why = f"it was tried in {found.version}, but the serving image installs {found.serving_version}"
        return inconclusive("runtime", threshold, why, "make setup", found.version)
    if found.problem:
        return failed("runtime", "does not work", threshold, found.problem, "export the model again")
    if found.golden_rows == 0:
        return inconclusive(
            "runtime", threshold, "the bundle holds no golden prediction", "train again", "0 golden rows"
        )
    if found.requests < FEWEST_REQUESTS:
        why = f"only {found.requests} requests were timed"
        return inconclusive("runtime", threshold, why, "run the gates again", f"{found.requests} requests")
    figure = f"p99 {found.p99_ms:.2g} ms"
    if found.p99_ms > budget:
        why = f"one request in a hundred takes {found.p99_ms:.3g} ms or more"
        return failed("runtime", figure, threshold, why, "make the model smaller, or decide on another budget")
    return passed("runtime", figure, threshold, f"{found.golden_rows} golden rows match in {found.version}")
