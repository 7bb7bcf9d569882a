"""Gate: the training job built the bundle from a commit on main."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def provenance(facts: Facts) -> Verdict:
    """Refuse a bundle that the training job did not build, or that was built from code that is not on main."""
    threshold = "the training job, from main"
    origin = facts.origin
    if origin is None:
        return inconclusive("provenance", threshold, facts.missing("origin"), "train again from main")
    if origin.builder != origin.expected_builder:
        why = f"built by {origin.builder}; expected {origin.expected_builder}"
        return failed("provenance", "wrong builder", threshold, why, "release what the training job registered")
    commit = origin.commit_on_main
    if commit is None:
        named = ", ".join(stated[:12] for stated in origin.commits) or "none named"
        fix = "merge the code first, then train"
        return failed("provenance", "not on main", threshold, f"main contains none of its commits: {named}", fix)
    if origin.committed_source != origin.source:
        why = f"the model's folder in {commit[:12]} differs from the source of the bundle"
        return failed("provenance", "other source", threshold, why, "train again from a clean checkout of main")
    return passed(
        "provenance", commit[:12], threshold, f"{origin.builder} built it from {commit[:12]}, which is on main"
    )
