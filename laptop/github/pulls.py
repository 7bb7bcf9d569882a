"""Pull requests as values, and what keeps one from being merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from laptop.github.codeowners import Rule, unapproved
from laptop.github.settings import Settings

PASSED = ("success", "skipped", "neutral")


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
class PullRequest:
    """A pull request.

    `state` is OPEN, CLOSED or MERGED; times are ISO 8601, "" for never; `fork` is the repository that the head is in,
    "" for the same as the base.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PullRequest:
        reviews = tuple(Review(**review) for review in value["reviews"])
        return cls(**{**value, "labels": tuple(value["labels"]), "reviews": reviews})

    @property
    def approvers(self) -> tuple[str, ...]:
        """Whoever's last word is an approval."""
        last = {review.author: review.state for review in self.reviews}
        return tuple(author for author, state in last.items() if state == "APPROVED")

    def dismissed(self) -> PullRequest:
        """The same with its approvals taken away."""
        stale = [replace(r, state="DISMISSED") if r.state == "APPROVED" else r for r in self.reviews]
        return replace(self, reviews=tuple(stale))


@dataclass(frozen=True)
class MergeFacts:
    """What a merge depends on besides the pull request itself.

    Attributes:
        conflict: head and base cannot be merged.
        behind: the head lacks commits of the base.
        files: what the pull request changes.
        rules: CODEOWNERS on the base branch.
        checks: name → conclusion ("" while it runs), on the head commit.
    """

    conflict: bool
    behind: bool
    files: Sequence[str]
    rules: Sequence[Rule]
    checks: Mapping[str, str]


def blockers(pull: PullRequest, facts: MergeFacts, settings: Settings) -> list[str]:
    """Why the rules forbid the merge, one sentence a reason; empty when they allow it."""
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
    objecting = {review.author: review.state for review in pull.reviews}
    reasons += [f"{author} asks for changes" for author, state in objecting.items() if state == "CHANGES_REQUESTED"]
    if len(pull.approvers) < rules.approvals:
        reasons.append(f"it has {len(pull.approvers)} of {rules.approvals} approvals")
    if rules.code_owners:
        missing = unapproved(facts.rules, facts.files, pull.approvers, settings.teams)
        for path, owners in missing.items():
            reasons.append(f"{path} lacks the approval of an owner ({', '.join(owners)})")
    return reasons
