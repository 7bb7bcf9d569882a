"""Gate: the registry has the bundle, and every file matches its digest."""

from __future__ import annotations

from pipelines.declarations.plurals import counted
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def digest(facts: Facts) -> Verdict:
    """Refuse a bundle that does not exist, or has a changed, missing or added file."""
    threshold = "every digest matches"
    if not facts.candidate:
        return failed("digest", "no bundle", threshold, "the release names no bundle", "name a bundle, or roll back")
    if "files" in facts.unknown:
        return inconclusive("digest", threshold, facts.missing("files"), "make the registry readable")
    if not facts.files:
        fix = "release a bundle that training registered"
        return failed("digest", "not found", threshold, "the registry has no such bundle", fix)
    wrong = [file for file in facts.files if file.expected is None or file.found != file.expected]
    if not wrong:
        return passed("digest", counted(len(facts.files), "file"), threshold, f"{facts.candidate} is unchanged")
    file = wrong[0]
    happened = "was added" if file.expected is None else "is missing" if file.found is None else "was changed"
    why = f"{file.name} {happened}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
    return failed(
        "digest", f"{len(wrong)} wrong", threshold, why, "train again, and find out who wrote to the registry"
    )
