"""Gate: a promotion changes one release file and nothing else."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, passed


def scope(facts: Facts) -> Verdict:
    """Refuse a pull request that changes anything but the release file."""
    path = f"models/{facts.release.model}/releases/{facts.release.environment}.yaml"
    threshold = "1 release file"
    if set(facts.changed_files) == {path}:
        return passed("scope", "1 file", threshold, f"only {path} changes")
    others = sorted(set(facts.changed_files) - {path})
    if path not in facts.changed_files:
        return failed("scope", counted(len(others), "file"), threshold, f"{path} does not change", "propose a release")
    named = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
    fix = "propose the other changes in a separate pull request"
    return failed("scope", counted(len(others) + 1, "file"), threshold, f"it also changes {named}", fix)
