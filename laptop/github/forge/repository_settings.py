"""Settings of a repository, as on GitHub's settings pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class BranchProtection:
    """Protection rules of the default branch. Direct pushes to a protected branch are refused.

    Attributes:
        required_checks: names of the jobs that must pass on a pull request's head.
        strict: the head must be up to date with the base.
        approvals: number of approvals that a merge needs.
        code_owners: each file that has owners in CODEOWNERS needs the approval of one of them.
        dismiss_stale: a new commit dismisses earlier approvals.
        last_push: someone other than the last pusher must approve.
        bypass: slugs of apps that are exempt.
    """

    required_checks: tuple[str, ...] = ()
    strict: bool = False
    approvals: int = 1
    code_owners: bool = True
    dismiss_stale: bool = True
    last_push: bool = False
    bypass: tuple[str, ...] = ()


FORK_POLICIES = ("first_time_contributors_new_to_github", "first_time_contributors", "all_external_contributors")


@dataclass(frozen=True)
class RepositorySettings:
    """Settings of a repository.

    Attributes:
        protection: rules of the default branch, or None.
        users: logins with write access.
        teams: `owner/team` → logins of its members. A login as key has stand-ins.
        private: reading needs a token.
        write_by_default: GITHUB_TOKEN may write if a workflow declares no permissions.
        actions_open_pull_requests: "Allow GitHub Actions to create and approve pull requests".
        fork_approval: whose pull requests from forks run workflows only after an approval; one of `FORK_POLICIES`.
        environments: deployment environment → patterns of the branches that may deploy to it; () for any branch.
        subject_with_ids: the OIDC subject is `repo:OWNER@id/NAME@id:…` (repositories created since mid-2026).
        subject_keys: claims that make up the OIDC subject instead of GitHub's own form; () for that.
        owner_id, repository_id: the ids in the OIDC subject.
        administrators: logins that may change the settings.
        actions_enabled: workflows run.
        disabled_workflows: path of a workflow file → its state: `disabled_manually`, `disabled_inactivity`, ….
        signed_commits: pushed commits must be signed. Commits that an app creates through the API are.
        labels: labels of issues and pull requests.
    """

    protection: BranchProtection | None = None
    users: tuple[str, ...] = ()
    teams: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    private: bool = True
    write_by_default: bool = False
    actions_open_pull_requests: bool = False
    fork_approval: str = "first_time_contributors"
    environments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subject_with_ids: bool = False
    subject_keys: tuple[str, ...] = ()
    owner_id: int = 1
    repository_id: int = 2
    administrators: tuple[str, ...] = ()
    actions_enabled: bool = True
    disabled_workflows: Mapping[str, str] = field(default_factory=dict)
    signed_commits: bool = False
    labels: tuple[str, ...] = ("bug", "documentation", "enhancement", "question")

    def find_environment(self, name: str) -> str | None:
        """Return the name that an environment was created with; None if there is none. GitHub ignores the case."""
        return next((each for each in self.environments if each.lower() == name.lower()), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RepositorySettings:
        protection = value["protection"]
        if protection is not None:
            names = {"required_checks": tuple(protection["required_checks"]), "bypass": tuple(protection["bypass"])}
            protection = BranchProtection(**{**protection, **names})
        groups = {name: {k: tuple(v) for k, v in value[name].items()} for name in ("teams", "environments")}
        lists = {name: tuple(value[name]) for name in ("users", "administrators", "subject_keys", "labels")}
        return cls(**{**value, **groups, **lists, "protection": protection})
