"""Pull requests as values, and the rules that decide whether one may be merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from laptop.github.forge.owners import unapproved_files
from laptop.github.forge.repository_settings import RepositorySettings

if TYPE_CHECKING:
    from codeowners import CodeOwners

PASSED = ("success", "skipped", "neutral")
"""Conclusions that satisfy a required check."""


@dataclass(frozen=True)
class Review:
    """A review; `state` is APPROVED, CHANGES_REQUESTED or DISMISSED."""

    id: int
    author: str
    state: str
    body: str
    commit: str
    submitted_at: str


@dataclass(frozen=True)
class PullRequestRecord:
    """A pull request.

    `state` is OPEN, CLOSED or MERGED. Times are ISO 8601, or "" if the event has not happened. `fork` is the full name
    of the repository that holds the head branch, "" if that is the base repository. `pushed_by` pushed its last
    commit.
    """

    number: int
    title: str
    body: str
    author: str
    head: str
    base: str
    head_sha: str
    base_sha: str
    state: str
    labels: tuple[str, ...]
    created_at: str
    updated_at: str
    reviews: tuple[Review, ...] = ()
    merged_at: str = ""
    merged_by: str = ""
    merge_commit: str = ""
    fork: str = ""
    pushed_by: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PullRequestRecord:
        reviews = tuple(Review(**review) for review in value["reviews"])
        return cls(**{**value, "labels": tuple(value["labels"]), "reviews": reviews})

    @property
    def approvers(self) -> tuple[str, ...]:
        """Logins whose latest review is an approval."""
        last = {review.author: review.state for review in self.reviews}
        return tuple(author for author, state in last.items() if state == "APPROVED")

    def dismiss_approvals(self) -> PullRequestRecord:
        """Return a copy with its approvals dismissed."""
        reviews = [replace(r, state="DISMISSED") if r.state == "APPROVED" else r for r in self.reviews]
        return replace(self, reviews=tuple(reviews))


@dataclass(frozen=True)
class MergeFacts:
    """Facts that a merge depends on, in addition to the pull request itself.

    Attributes:
        conflict: head and base conflict.
        behind: the head lacks commits of the base.
        files: paths that the pull request changes.
        owners: CODEOWNERS on the base branch.
        checks: name → conclusion on the head commit; "" while the check runs.
    """

    conflict: bool
    behind: bool
    files: Sequence[str]
    owners: CodeOwners
    checks: Mapping[str, str]


def find_blockers(pull: PullRequestRecord, facts: MergeFacts, settings: RepositorySettings) -> list[str]:
    """Return the reasons why a pull request may not be merged, one sentence each; empty if it may."""
    reasons = [] if pull.state == "OPEN" else [f"it is {pull.state.lower()}"]
    if facts.conflict:
        reasons.append(f"it conflicts with {pull.base}")
    rules = settings.protection
    if rules is None:
        return reasons
    if rules.strict and facts.behind:
        reasons.append(f"its branch lacks the newest commits of {pull.base}")
    for name in rules.required_checks:
        found = facts.checks.get(name)
        if found not in PASSED:
            state = "has not run" if found is None else ("is running" if found == "" else f"ended in {found}")
            reasons.append(f"the required check {name!r} {state}")
    latest = {review.author: review.state for review in pull.reviews}
    reasons += [f"{author} requests changes" for author, state in latest.items() if state == "CHANGES_REQUESTED"]
    if len(pull.approvers) < rules.approvals:
        reasons.append(f"it has {len(pull.approvers)} of {rules.approvals} approvals")
    if rules.last_push and pull.approvers and not set(pull.approvers) - {pull.pushed_by}:
        reasons.append(f"it lacks the approval of someone other than {pull.pushed_by}, who pushed last")
    if rules.code_owners:
        missing = unapproved_files(facts.owners, facts.files, pull.approvers, settings.teams)
        for path, names in missing.items():
            reasons.append(f"{path} lacks the approval of an owner ({', '.join(names)})")
    return reasons
