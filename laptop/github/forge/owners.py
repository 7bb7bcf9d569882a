"""Owners of files, as `CODEOWNERS` declares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codeowners import CodeOwners

CODEOWNERS_PATHS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Paths where GitHub looks for the file; the first that exists counts."""


_SPACE = "\ue000"
"""Stands for a space in a path: the library takes a pattern with `\\ ` for one that has a `/`."""


def read_owners(text: str) -> CodeOwners:
    """Read a CODEOWNERS file. GitHub skips lines with `!` or `[ ]` patterns, so they are skipped here as well."""
    from codeowners import CodeOwners

    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    known = [line.replace("\\ ", _SPACE) for line in lines if line and not line.startswith("!") and "[" not in line]
    return CodeOwners("\n".join(known))


def owners_of(owners: CodeOwners, path: str) -> tuple[str, ...]:
    """Return the owners of a file in lower case (`maria`, `acme/approvers`); () if it has none."""
    return tuple(name.removeprefix("@").lower() for _, name in owners.of(path.replace(" ", _SPACE)))


def all_owners(owners: CodeOwners) -> set[str]:
    """Return every owner that the file names, in lower case."""
    return {name.removeprefix("@").lower() for _, _, named, _, _ in owners.paths for _, name in named}


def unapproved_files(
    owners: CodeOwners, paths: Iterable[str], approvers: Iterable[str], teams: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return the files that still need an owner's approval.

    Args:
        owners: the CODEOWNERS file of the base branch.
        paths: the changed files.
        approvers: logins of those who approved.
        teams: `owner/team` → logins of its members.

    Returns:
        path → its owners.
    """
    approved = {approver.lower() for approver in approvers}
    members = {team.lower(): {login.lower() for login in logins} for team, logins in teams.items()}
    missing = {}
    for path in paths:
        names = owners_of(owners, path)
        people = {login for name in names for login in members.get(name, {name})}
        if names and not people & approved:
            missing[path] = names
    return missing
