"""Correct a release file, so that it names the bundle that is live.

After a deployment that was refused or failed, main names a bundle that is not live. `git revert` of its merge is a
correction, and so is `mlops propose --live`. It changes nothing in the environment, so most gates do not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.declarations.markdown import short_digest
from pipelines.declarations.release import Release
from pipelines.promotion.verdict import Verdict, failed, passed
from pipelines.promotion.withdrawal import only_release_file


@dataclass(frozen=True)
class CorrectionFacts:
    """Facts of a correction.

    Attributes:
        release: the release file after the change; it names the live bundle.
        changed_files: every file that the pull request changes.
        quarantined: bundle → reason, for the quarantined bundles of the environment.
    """

    release: Release
    changed_files: tuple[str, ...]
    quarantined: Mapping[str, str]


def judge_correction(facts: CorrectionFacts) -> tuple[Verdict, ...]:
    """Return the verdicts on a correction: it is alone, and the live bundle is not being rolled back."""
    live = short_digest(facts.release.bundle)
    fresh = passed("freshness", live, live, f"{live} is live in {facts.release.environment}, so nothing changes there")
    return only_release_file(facts.release, facts.changed_files), fresh, _quarantine(facts)


def _quarantine(facts: CorrectionFacts) -> Verdict:
    threshold, release = "not quarantined", facts.release
    reason = facts.quarantined.get(release.bundle or "")
    if reason is not None:
        why = f"{short_digest(release.bundle)} is being rolled back: {reason}"
        return failed("quarantine", "quarantined", threshold, why, "run the workflow `rollback` again to finish it")
    return passed("quarantine", "clear", threshold, "it was never rolled back")
