"""Plan the requests that make the settings of a repository as documented, and send them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh, GitHubError
from pipelines.github.repository_facts import FORK_APPROVAL, EnvironmentFacts, RepositoryFacts, Unreadable
from pipelines.github.settings import (
    ACTIONS_APP,
    ALL_OUTSIDERS,
    APP_KEY,
    BYPASS,
    PREVIEW,
    REPOSITORY,
    REQUIRED_CHECKS,
    RULE_ROWS,
    Setting,
    WantedSettings,
    app_id,
    disabled_workflows,
    judge_settings,
    variables_of,
)

RULESET = "mlops: main"
"""Name of the ruleset that setup makes. It leaves others alone."""

_LABEL_COLOUR = "ededed"


@dataclass(frozen=True)
class SettingRequest:
    """A request to GitHub's API that changes a setting.

    Attributes:
        method, path: of the request; the path is below `repos/owner/name`.
        body: its JSON body.
        fallback: body of a second try if GitHub answers 422, because the plan does not have all of it.
        secret: name of a secret that is set instead, from a value that is in no plan; "" for none.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    fallback: Mapping[str, Any] | None = None
    secret: str = ""


@dataclass(frozen=True)
class Change:
    """Settings that are changed together.

    Attributes:
        settings: what they are now.
        requests: what changes them, in order.
    """

    settings: tuple[Setting, ...]
    requests: tuple[SettingRequest, ...]


@dataclass(frozen=True)
class SetupPlan:
    """What setup does, and what a person must do.

    Attributes:
        changes: what it changes.
        by_hand: settings that are not ok and that it cannot change.
    """

    changes: tuple[Change, ...]
    by_hand: tuple[Setting, ...]


def plan_setup(facts: RepositoryFacts, wanted: WantedSettings, *, has_key: bool = False) -> SetupPlan:
    """Decide which requests make the settings as documented.

    Args:
        facts: the settings now.
        wanted: the settings as they must be.
        has_key: whether the app's private key is given, so that it is saved.

    Raises:
        MlopsError: the caller is not an administrator of the repository.
    """
    if not facts.is_administered:
        roles = facts.about.get("permissions") or {}
        found = next((role for role in ("maintain", "push", "triage", "pull") if roles.get(role)), "none")
        raise MlopsError(
            f"rights on {facts.about['full_name']}: expected the role admin, found {found}",
            fix="ask an administrator of the repository to run this, or: gh auth login",
        )
    settings = {setting.name: setting for setting in judge_settings(facts, wanted)}
    changes, taken = [], set()
    for names, make in _areas(wanted, has_key=has_key):
        # The settings of a secret are always written: its value cannot be compared.
        wrong = [settings[name] for name in names if not settings[name].ok or name.startswith(f"secret {APP_KEY}")]
        if app_id(facts) is None:
            wrong = [setting for setting in wrong if setting.name != BYPASS]
        requests = tuple(make(facts, wanted)) if wrong else ()
        if requests:
            changes.append(Change(tuple(wrong), requests))
            taken |= {setting.name for setting in wrong}
    return SetupPlan(
        tuple(changes), tuple(found for name, found in settings.items() if not found.ok and name not in taken)
    )


Make = Callable[[RepositoryFacts, WantedSettings], Iterator[SettingRequest]]


def _areas(wanted: WantedSettings, *, has_key: bool) -> Iterator[tuple[tuple[str, ...], Make]]:
    """Yield names of settings, and the function that returns the requests which change them."""
    yield (("Actions",), _enable_actions)
    yield (("workflows",), _enable_workflows)
    yield (("Actions: token", "Actions: pull requests"), _limit_token)
    yield (("Actions: forks",), _limit_forks)
    for name in wanted.github_environments:
        own = () if name not in wanted.environments else ("environments: administrators",)
        yield ((f"environment {name}", *own), _environment_maker(name))
    for group, names in wanted.variable_names.items():
        for name in names:
            yield ((f"variable {name}: {group}",), _variable_maker(group, name))
    if has_key:
        yield (tuple(f"secret {APP_KEY}: {name}" for name in wanted.environments), _save_key)
    yield (("labels",), _make_labels)
    # Last: from here on, main changes by pull request only.
    yield ((*RULE_ROWS, BYPASS), _protect_main)


def settable(wanted: WantedSettings) -> frozenset[str]:
    """Return the names of the settings that setup can change."""
    return frozenset(name for names, _ in _areas(wanted, has_key=True) for name in names)


# --- requests ---


def _enable_actions(_: RepositoryFacts, __: WantedSettings) -> Iterator[SettingRequest]:
    yield SettingRequest("PUT", "actions/permissions", {"enabled": True, "allowed_actions": "all"})


def _enable_workflows(facts: RepositoryFacts, _: WantedSettings) -> Iterator[SettingRequest]:
    for workflow in disabled_workflows(facts):
        yield SettingRequest("PUT", f"actions/workflows/{workflow['id']}/enable")


def _limit_token(_: RepositoryFacts, __: WantedSettings) -> Iterator[SettingRequest]:
    body = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}
    yield SettingRequest("PUT", "actions/permissions/workflow", body)


def _limit_forks(_: RepositoryFacts, __: WantedSettings) -> Iterator[SettingRequest]:
    yield SettingRequest("PUT", FORK_APPROVAL, {"approval_policy": ALL_OUTSIDERS})


def _environment_maker(name: str) -> Make:
    def make(facts: RepositoryFacts, wanted: WantedSettings) -> Iterator[SettingRequest]:
        if isinstance(facts.environments, Unreadable):
            return
        found = facts.environments.get(name, EnvironmentFacts(name))
        is_open = name == PREVIEW
        policy = None if is_open else {"protected_branches": False, "custom_branch_policies": True}
        plain: dict[str, Any] = {"deployment_branch_policy": policy}
        body = dict(plain)
        reviewers = wanted.reviewers.get(name, found.reviewers)
        # GitHub resets what a request leaves out. Plans that lack these protections refuse them even if empty.
        if reviewers:
            body["reviewers"] = [{"type": kind, "id": number} for kind, number, _ in reviewers]
            body["prevent_self_review"] = found.prevent_self_review
        if found.wait_minutes:
            body["wait_timer"] = found.wait_minutes
        if name in wanted.environments:
            body["can_admins_bypass"] = False
        path = f"environments/{quote(name, safe='')}"
        yield SettingRequest("PUT", path, body, plain if body != plain and not reviewers else None)
        if not is_open and "main" not in (found.branches or ()):
            yield SettingRequest("POST", f"{path}/deployment-branch-policies", {"name": "main", "type": "branch"})
        for number in found.other_policies:
            yield SettingRequest("DELETE", f"{path}/deployment-branch-policies/{number}")

    return make


def _variable_maker(group: str, name: str) -> Make:
    def make(facts: RepositoryFacts, wanted: WantedSettings) -> Iterator[SettingRequest]:
        found, value = variables_of(facts, group), wanted.variables.get(group, {}).get(name)
        if isinstance(found, Unreadable) or value is None:
            return
        path = "actions/variables" if group == REPOSITORY else f"environments/{quote(group, safe='')}/variables"
        body = {"name": name, "value": value}
        yield SettingRequest("PATCH", f"{path}/{name}", body) if name in found else SettingRequest("POST", path, body)

    return make


def _save_key(_: RepositoryFacts, wanted: WantedSettings) -> Iterator[SettingRequest]:
    for name in wanted.environments:
        yield SettingRequest("PUT", name, secret=APP_KEY)


def _make_labels(facts: RepositoryFacts, wanted: WantedSettings) -> Iterator[SettingRequest]:
    if isinstance(facts.labels, Unreadable):
        return
    for name in sorted(wanted.labels - facts.labels):
        yield SettingRequest("POST", "labels", {"name": name, "color": _LABEL_COLOUR})


def _protect_main(facts: RepositoryFacts, _: WantedSettings) -> Iterator[SettingRequest]:
    if isinstance(facts.rulesets, Unreadable):
        return
    found = next((each for each in facts.rulesets if _is_own(each, facts)), None)
    body = wanted_ruleset(found, app_id(facts))
    if found is None:
        yield SettingRequest("POST", "rulesets", body)
    elif _comparable(found) != _comparable(body):
        yield SettingRequest("PUT", f"rulesets/{found['id']}", body)


def _is_own(ruleset: Mapping[str, Any], facts: RepositoryFacts) -> bool:
    source = ruleset.get("source", facts.about["full_name"])
    return bool(ruleset["name"] == RULESET and source == facts.about["full_name"])


def _comparable(ruleset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what setup decides about a ruleset, without the order of its lists."""
    rules = {str(rule["type"]): dict(rule.get("parameters") or {}) for rule in ruleset["rules"]}
    checks = rules.get("required_status_checks", {})
    if "required_status_checks" in checks:
        checks["required_status_checks"] = sorted(map(str, checks["required_status_checks"]))
    bypass = sorted(f"{each['actor_type']} {each['actor_id']}" for each in ruleset.get("bypass_actors", []))
    names = ruleset["conditions"]["ref_name"]
    where = {key: sorted(names.get(key, [])) for key in ("include", "exclude")}
    return {"enforcement": ruleset["enforcement"], "where": where, "bypass": bypass, "rules": rules}


def wanted_ruleset(found: Mapping[str, Any] | None, app: int | None) -> dict[str, Any]:
    """Return the ruleset of main. What is stricter in the present one stays.

    Args:
        found: the ruleset that setup made earlier; None if there is none.
        app: id of the app that may bypass it; None to keep the apps that may.
    """
    present = {str(rule["type"]): rule.get("parameters") or {} for rule in (found or {}).get("rules", [])}
    review = {"required_review_thread_resolution": False, **present.get("pull_request", {})}
    review |= {
        "required_approving_review_count": max(1, int(review.get("required_approving_review_count", 0))),
        "dismiss_stale_reviews_on_push": True,
        "require_code_owner_review": True,
        "require_last_push_approval": True,
    }
    checks = {"strict_required_status_checks_policy": False, **present.get("required_status_checks", {})}
    others = [each for each in checks.get("required_status_checks", []) if each["context"] not in REQUIRED_CHECKS]
    checks["required_status_checks"] = [
        *({"context": name, "integration_id": ACTIONS_APP} for name in REQUIRED_CHECKS),
        *others,
    ]
    own: dict[str, Any] = {
        "deletion": None,
        "non_fast_forward": None,
        "pull_request": review,
        "required_status_checks": checks,
    }
    kept = [rule for rule in (found or {}).get("rules", []) if rule["type"] not in own]
    bypass = [{"actor_id": app, "actor_type": "Integration", "bypass_mode": "always"}]
    if app is None:
        bypass = [each for each in (found or {}).get("bypass_actors", []) if each["actor_type"] == "Integration"]
    return {
        "name": RULESET,
        "target": "branch",
        "enforcement": "active",
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
        "bypass_actors": bypass,
        "rules": [
            *({"type": kind} if value is None else {"type": kind, "parameters": value} for kind, value in own.items()),
            *kept,
        ],
    }


# --- sending ---


def apply_setup(gh: Gh, changes: Sequence[Change], *, key: str = "") -> Iterator[tuple[Change, GitHubError | None]]:
    """Send the requests, and yield each change with the error that ended it, if any.

    A change that fails does not stop the others. Run the command again to finish.

    Args:
        gh: the repository.
        changes: what to change.
        key: the app's private key, for the requests that save it.

    Raises:
        MlopsError: `gh` is not installed.
    """
    for change in changes:
        try:
            for request in change.requests:
                _send(gh, request, key)
        except GitHubError as error:
            yield change, error
        else:
            yield change, None


def _send(gh: Gh, request: SettingRequest, key: str) -> None:
    if request.secret:
        # gh encrypts the value for GitHub (libsodium sealed box) and takes it from standard input.
        gh.run("secret", "set", request.secret, "--env", request.path, "--repo", gh.repository, stdin=key)
        return
    path = f"repos/{gh.repository}/{request.path}"
    try:
        gh.request(request.method, path, request.body)
    except GitHubError as error:
        if error.status != 422 or request.fallback is None:
            raise
        gh.request(request.method, path, request.fallback)
