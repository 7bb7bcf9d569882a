"""Who owns a file: `.github/CODEOWNERS` as GitHub reads it (the last line that matches decides)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")


@dataclass(frozen=True)
class Rule:
    """One line: a pattern and its owners (`maria`, `acme/approvers`); no owners takes the ownership away."""

    pattern: re.Pattern[str]
    owners: tuple[str, ...]


def read_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a CODEOWNERS file. As on GitHub, a line that is not valid is skipped: `!`, `[` and `\\#` are not."""
    rules = []
    for line in text.splitlines():
        pattern, *owners = line.split("#", 1)[0].split() or [""]
        if not pattern or pattern.startswith("!") or "[" in pattern:
            continue
        rules.append(Rule(_compile(pattern), tuple(owner.removeprefix("@").lower() for owner in owners)))
    return tuple(rules)


def _compile(pattern: str) -> re.Pattern[str]:
    """As in .gitignore: a slash inside or in front ties it to the root; a folder takes all that is in it."""
    anchored = "/" in pattern.rstrip("/")
    folder = pattern.endswith("/")
    core = pattern.strip("/")
    expression = ""
    for part in re.split(r"(\*\*/|/\*\*|\*|\?)", core):
        expression += {"**/": "(?:.*/)?", "/**": "/.*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    # `docs/*` means the files right in docs, and nothing deeper.
    below = "/.*" if folder else ("" if core.endswith("/*") else "(?:/.*)?")
    return re.compile(f"{'' if anchored else '(?:.*/)?'}{expression}{below}", re.DOTALL)


def owners_of(rules: Sequence[Rule], path: str) -> tuple[str, ...]:
    """The owners of a file; () when nobody owns it."""
    return next((rule.owners for rule in reversed(rules) if rule.pattern.fullmatch(path)), ())


def unapproved(
    rules: Sequence[Rule], paths: Iterable[str], approvers: Iterable[str], teams: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """The files that no owner among `approvers` has approved, each with its owners."""
    approved = {approver.lower() for approver in approvers}
    members = {team.lower(): {login.lower() for login in logins} for team, logins in teams.items()}
    missing = {}
    for path in paths:
        owners = owners_of(rules, path)
        people = {login for owner in owners for login in members.get(owner, {owner})}
        if owners and not people & approved:
            missing[path] = owners
    return missing
