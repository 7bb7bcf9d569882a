"""A repository's settings, as on GitHub's settings pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protection:
    """The rules of the default branch. With one, nobody pushes to it directly.

    Attributes:
        required_checks: names of the jobs that must have passed on a pull request's head.
        strict: the head must contain the base's newest commit.
        approvals: how many approvals a merge needs.
        code_owners: an owner named in `.github/CODEOWNERS` must approve each file that has one.
        dismiss_stale: a new commit takes earlier approvals away.
        bypass: apps (by slug) that these rules do not bind.
    """

    required_checks: tuple[str, ...] = ()
    strict: bool = False
    approvals: int = 1
    code_owners: bool = True
    dismiss_stale: bool = True
    bypass: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The repository's settings.

    Attributes:
        protection: the rules of the default branch, or None.
        users: who may write to the repository.
        teams: `owner/team` → its members; by a login instead, who stands in for one person.
        private: reading needs a token too.
        write_by_default: GITHUB_TOKEN may write where a workflow says nothing about permissions.
        actions_open_pull_requests: "Allow GitHub Actions to create and approve pull requests".
        environments: deployment environment → patterns of the branches that may deploy to it; () means any branch.
        subject_with_ids: the OIDC subject is `repo:OWNER@id/NAME@id:…` (repositories made since mid-2026).
        owner_id, repository_id: the ids in it.
    """

    protection: Protection | None = None
    users: tuple[str, ...] = ()
    teams: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    private: bool = True
    write_by_default: bool = False
    actions_open_pull_requests: bool = False
    environments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subject_with_ids: bool = False
    owner_id: int = 1
    repository_id: int = 2

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Settings:
        protection = value["protection"]
        if protection is not None:
            lists = {"required_checks": tuple(protection["required_checks"]), "bypass": tuple(protection["bypass"])}
            protection = Protection(**{**protection, **lists})
        groups = {name: {k: tuple(v) for k, v in value[name].items()} for name in ("teams", "environments")}
        return cls(**{**value, **groups, "protection": protection, "users": tuple(value["users"])})
