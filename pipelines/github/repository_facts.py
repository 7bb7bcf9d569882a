"""Read the settings of a repository on GitHub. Read-only; what cannot be read is kept as the reason, never assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh, GitHubError

CODE_OWNERS = Path(".github/CODEOWNERS")
"""The file that says who approves what, relative to the repository."""

APP_SLUG = "APP_SLUG"
"""Variable that names the GitHub App: the last part of `https://github.com/apps/<slug>`."""

FORK_APPROVAL = "actions/permissions/fork-pr-contributor-approval"
"""Path of the setting that says whose pull requests from forks run workflows only after an approval."""

T = TypeVar("T")


@dataclass(frozen=True)
class Unreadable:
    """A fact that could not be read.

    Attributes:
        why: GitHub's reason.
        status: the HTTP status; None if there was no answer.
    """

    why: str
    status: int | None = None


@dataclass(frozen=True)
class EnvironmentFacts:
    """A GitHub environment.

    Attributes:
        name: its name.
        branches: patterns of the branches and tags that may deploy to it; None if all may.
        other_policies: ids of the policies that admit another branch than main.
        protected_branches: whether it admits "protected branches", whatever they are, instead of patterns.
        admins_bypass: whether administrators may bypass its protection; None if GitHub does not say.
        reviewers: (`User` or `Team`, id, name) of those who must approve a deployment.
        wait_minutes: how long a deployment waits.
        prevent_self_review: whether the one who started a deployment may not approve it.
        variables: name → value.
        secrets: names of the secrets.
    """

    name: str
    branches: tuple[str, ...] | None = None
    other_policies: tuple[int, ...] = ()
    protected_branches: bool = False
    admins_bypass: bool | None = None
    reviewers: tuple[tuple[str, int, str], ...] = ()
    wait_minutes: int = 0
    prevent_self_review: bool = False
    variables: Mapping[str, str] | Unreadable = Unreadable("not asked")
    secrets: frozenset[str] | Unreadable = Unreadable("not asked")


@dataclass(frozen=True)
class RepositoryFacts:
    """The settings of a repository.

    Attributes:
        about: the repository, with the caller's `permissions`.
        plan: the plan of its owner, such as `free` or `team`.
        rulesets: all rulesets for branches, with rules and bypass lists.
        environments: name → environment.
        variables: name → value of the repository's variables.
        secrets: names of the repository's secrets.
        actions: which actions may run.
        token: the default permissions of a job's token.
        fork_approval: whose pull requests from forks need an approval to run workflows; None if the repository is
            private, because then they run none.
        workflows: the workflows on main, with their state.
        labels: names of the labels.
        owner_errors: errors in CODEOWNERS on main.
        code_owners: text of CODEOWNERS in the clone; "" if there is none.
        app: the app that `APP_SLUG` or the caller names; None if none is named.
        installation: the app's installation in the organisation; None if it is not installed there.
        subject: customisation of the subject of OIDC tokens.
    """

    about: Mapping[str, Any]
    plan: str | Unreadable
    rulesets: Sequence[Mapping[str, Any]] | Unreadable
    environments: Mapping[str, EnvironmentFacts] | Unreadable
    variables: Mapping[str, str] | Unreadable
    secrets: frozenset[str] | Unreadable
    actions: Mapping[str, Any] | Unreadable
    token: Mapping[str, Any] | Unreadable
    fork_approval: str | Unreadable | None
    workflows: Sequence[Mapping[str, Any]] | Unreadable
    labels: frozenset[str] | Unreadable
    owner_errors: Sequence[Mapping[str, Any]] | Unreadable
    code_owners: str
    app: Mapping[str, Any] | Unreadable | None
    installation: Mapping[str, Any] | Unreadable | None
    subject: Mapping[str, Any] | Unreadable

    @property
    def owner(self) -> str:
        """Login of the owner: an organisation or a user."""
        return str(self.about["owner"]["login"])

    @property
    def is_organisation(self) -> bool:
        """Whether the owner is an organisation, which alone can have teams."""
        return bool(self.about["owner"].get("type") == "Organization")

    @property
    def is_private(self) -> bool:
        """Whether the repository is private or internal."""
        return bool(self.about.get("private"))

    @property
    def is_administered(self) -> bool:
        """Whether the caller is an administrator of the repository."""
        return bool((self.about.get("permissions") or {}).get("admin"))


def read_repository(gh: Gh, environments: Sequence[str], app: str | None = None) -> RepositoryFacts:
    """Read the settings of a repository.

    Args:
        gh: the repository.
        environments: GitHub environments whose variables and secrets are read.
        app: slug of the GitHub App; None for the one that the variable `APP_SLUG` names.

    Raises:
        MlopsError: the repository itself cannot be read.
    """
    repository = f"repos/{gh.repository}"
    about = gh.request("GET", repository)
    variables = _try(lambda: _variables(gh, f"{repository}/actions/variables"))
    slug = app or ("" if isinstance(variables, Unreadable) else variables.get(APP_SLUG, ""))
    found_app = _try(lambda: _object(gh, f"apps/{quote(slug, safe='')}")) if slug else None
    owners = gh.root / CODE_OWNERS
    return RepositoryFacts(
        about=about,
        plan=_try(lambda: _plan(gh, about)),
        rulesets=_try(lambda: _rulesets(gh, repository)),
        environments=_try(lambda: _environments(gh, repository, environments)),
        variables=variables,
        secrets=_try(lambda: _secrets(gh, f"{repository}/actions/secrets")),
        actions=_try(lambda: _object(gh, f"{repository}/actions/permissions")),
        token=_try(lambda: _object(gh, f"{repository}/actions/permissions/workflow")),
        fork_approval=None if about.get("private") else _try(lambda: _fork_approval(gh, repository)),
        workflows=_try(lambda: _pages(gh, f"{repository}/actions/workflows", "workflows")),
        labels=_try(lambda: frozenset(str(label["name"]) for label in _pages(gh, f"{repository}/labels"))),
        owner_errors=_try(lambda: tuple(_object(gh, f"{repository}/codeowners/errors")["errors"])),
        code_owners=owners.read_text(encoding="utf-8") if owners.is_file() else "",
        app=found_app,
        installation=_try(lambda: _installation(gh, about, slug)) if slug else None,
        subject=_try(lambda: _object(gh, f"{repository}/actions/oidc/customization/sub")),
    )


def _try(read: Callable[[], T]) -> T | Unreadable:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Unreadable(f"unexpected answer: {type(error).__name__}: {error}")
    except GitHubError as error:
        return Unreadable(_reason(error), error.status)
    except MlopsError as error:
        return Unreadable(error.what)


def _reason(error: GitHubError) -> str:
    """Return GitHub's own words."""
    text = error.what.splitlines()[-1].rpartition("gh: ")[2]
    if error.status == 404:
        return f"{text}: it does not exist, or this token may not read it"
    return text


def _fork_approval(gh: Gh, repository: str) -> str:
    return str(_object(gh, f"{repository}/{FORK_APPROVAL}")["approval_policy"])


def _object(gh: Gh, path: str) -> dict[str, Any]:
    answer = gh.request("GET", path)
    if not isinstance(answer, dict):
        raise TypeError(f"{path}: expected an object")
    return answer


def _pages(gh: Gh, path: str, key: str | None = None) -> list[dict[str, Any]]:
    """Return all items of a list of any length.

    Args:
        gh: the repository.
        path: the whole path.
        key: key of the list in the answer; None if the answer is the list.
    """
    items: list[dict[str, Any]] = []
    for page in range(1, 101):
        answer = gh.request("GET", f"{path}{'&' if '?' in path else '?'}per_page=100&page={page}")
        found = answer if key is None else answer[key]
        items += found
        if len(found) < 100:
            break
    return items


def _variables(gh: Gh, path: str) -> dict[str, str]:
    return {str(each["name"]): str(each["value"]) for each in _pages(gh, path, "variables")}


def _secrets(gh: Gh, path: str) -> frozenset[str]:
    return frozenset(str(each["name"]) for each in _pages(gh, path, "secrets"))


def _plan(gh: Gh, about: Mapping[str, Any]) -> str:
    """Return the name of the owner's plan, which only an owner may read."""
    owner = about["owner"]
    is_organisation = owner.get("type") == "Organization"
    account = _object(gh, f"orgs/{owner['login']}" if is_organisation else "user")
    if account["login"] != owner["login"] or "plan" not in account:
        raise MlopsError(f"only an owner of {owner['login']} can read its plan")
    return str(account["plan"]["name"])


def _rulesets(gh: Gh, repository: str) -> tuple[dict[str, Any], ...]:
    listed = _pages(gh, f"{repository}/rulesets")
    return tuple(_object(gh, f"{repository}/rulesets/{each['id']}") for each in listed if each["target"] == "branch")


def _installation(gh: Gh, about: Mapping[str, Any], slug: str) -> dict[str, Any] | None:
    owner = about["owner"]
    if owner.get("type") != "Organization":
        raise MlopsError("GitHub lists the installations of an organisation only")
    listed = _pages(gh, f"orgs/{owner['login']}/installations", "installations")
    return next((each for each in listed if each["app_slug"] == slug), None)


def _environments(gh: Gh, repository: str, wanted: Sequence[str]) -> dict[str, EnvironmentFacts]:
    listed = _pages(gh, f"{repository}/environments", "environments")
    named = {str(each["name"]).lower(): each for each in listed}  # GitHub ignores the case
    return {name: _environment(gh, repository, named[name]) for name in wanted if name in named}


def _environment(gh: Gh, repository: str, found: Mapping[str, Any]) -> EnvironmentFacts:
    name = str(found["name"])
    path = f"{repository}/environments/{quote(name, safe='')}"
    policy = found.get("deployment_branch_policy")
    is_custom = bool(policy and policy.get("custom_branch_policies"))
    listed = _pages(gh, f"{path}/deployment-branch-policies", "branch_policies") if is_custom else []
    rules = {str(rule["type"]): rule for rule in found.get("protection_rules") or []}
    review = rules.get("required_reviewers", {})
    return EnvironmentFacts(
        name=name,
        branches=None if policy is None else tuple(sorted(_pattern(each) for each in listed)),
        other_policies=tuple(int(each["id"]) for each in listed if _pattern(each) != "main"),
        protected_branches=bool(policy) and not is_custom,
        admins_bypass=found.get("can_admins_bypass"),
        reviewers=tuple(
            (str(each["type"]), int(each["reviewer"]["id"]), _name(each)) for each in review.get("reviewers") or []
        ),
        wait_minutes=int(rules.get("wait_timer", {}).get("wait_timer", 0)),
        prevent_self_review=bool(review.get("prevent_self_review")),
        variables=_try(lambda: _variables(gh, f"{path}/variables")),
        secrets=_try(lambda: _secrets(gh, f"{path}/secrets")),
    )


def _pattern(policy: Mapping[str, Any]) -> str:
    name = str(policy["name"])
    return f"tag {name}" if policy.get("type") == "tag" else name


def _name(reviewer: Mapping[str, Any]) -> str:
    found = reviewer["reviewer"]
    return str(found.get("login") or found.get("slug"))


def read_teams(gh: Gh, organisation: str) -> dict[str, int]:
    """Return the teams of an organisation: slug → id.

    Raises:
        MlopsError: this token may not read them.
    """
    return {str(team["slug"]): int(team["id"]) for team in _pages(gh, f"orgs/{organisation}/teams")}


def form_labels(root: Path) -> frozenset[str]:
    """Return the labels that the issue forms set. GitHub leaves out those that do not exist."""
    found: set[str] = set()
    for form in sorted((root / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        labels = (parse_yaml(read_bytes(form), form)[0] or {}).get("labels") or []
        found |= {str(label) for label in labels}
    return frozenset(found)
