"""The bundle was built from a commit on main, by the training job."""

from __future__ import annotations

from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def provenance(facts: Facts) -> Verdict:
    """Refuses a bundle made by anything but the training job, from code that is not on main."""
    threshold = "the training job, from main"
    origin = facts.origin
    if origin is None:
        return inconclusive("provenance", threshold, facts.missing("origin"), "train again from main")
    if origin.builder != origin.expected_builder:
        why = f"it was built by {origin.builder}; expected {origin.expected_builder}"
        return failed("provenance", "another builder", threshold, why, "release what the training job registered")
    commit = origin.commit_on_main
    if commit is None:
        named = ", ".join(stated[:12] for stated in origin.commits) or "no commit"
        fix = "merge the code first, then train"
        return failed("provenance", "not on main", threshold, f"{named} is not on main", fix)
    if origin.committed_source != origin.source:
        why = f"the model's folder in {commit[:12]} is not what the bundle was made from"
        return failed("provenance", "other code", threshold, why, "train again from a clean checkout of main")
    return passed(
        "provenance", commit[:12], threshold, f"{origin.builder} built it from {commit[:12]}, which is on main"
    )
