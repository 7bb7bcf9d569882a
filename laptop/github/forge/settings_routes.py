"""REST API of the settings pages: rulesets, environments, variables, Actions, labels, the app and the organisation.

What only GitHub acts on (reviewers, wait timers, unknown rules) is kept as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.github_state import State
from laptop.github.forge.owners import CODEOWNERS_PATHS, all_owners, read_owners
from laptop.github.forge.push_rules import bypasses
from laptop.github.forge.repository_creation import MAIN
from laptop.github.forge.repository_settings import FORK_POLICIES, BranchProtection, RepositorySettings
from laptop.github.forge.vault import Vault

Route = Callable[[GitHubServer, Actor, "re.Match[str]", Mapping[str, Any]], Any]

_NOT_FOUND = RequestDeniedError(404, "Not Found")


def administers(server: GitHubServer, actor: Actor) -> bool:
    """Return whether an actor may change the settings."""
    return actor.login in server.settings.administrators if actor.kind == "user" else False


def _need_administrator(server: GitHubServer, actor: Actor) -> None:
    if actor.kind == "user":
        if not administers(server, actor):
            # GitHub hides what a caller may not change.
            raise RequestDeniedError(404, "Not Found", fix="ask an administrator of the repository")
        return
    actor.need("write", "administration")


def _change(server: GitHubServer, change: Callable[[RepositorySettings, State], RepositorySettings]) -> None:
    with server.change() as state:
        settings = RepositorySettings.from_json(state["settings"])
        state["settings"] = change(settings, state).to_json()


# --- rulesets ---


def _app_ids(state: State) -> dict[str, int]:
    """Return slug → id of the installed apps."""
    return {app["slug"]: 1000 + number for number, app in enumerate(state["apps"].values(), start=1)}


def _rulesets_in(state: State) -> dict[str, dict[str, Any]]:
    """Return id → ruleset. Before one is written, it is made of the protection of main."""
    if "rulesets" in state:
        return dict(state["rulesets"])
    rules = RepositorySettings.from_json(state["settings"]).protection
    if rules is None:
        return {}
    review = {
        "dismiss_stale_reviews_on_push": rules.dismiss_stale,
        "require_code_owner_review": rules.code_owners,
        "required_approving_review_count": rules.approvals,
        "require_last_push_approval": rules.last_push,
    }
    checks = {
        "strict_required_status_checks_policy": rules.strict,
        "required_status_checks": [{"context": name, "integration_id": 15368} for name in rules.required_checks],
    }
    ids = _app_ids(state)
    bypass = [
        {"actor_id": ids[slug], "actor_type": "Integration", "bypass_mode": "always"}
        for slug in rules.bypass
        if slug in ids
    ]
    return {
        "1": {
            "name": MAIN,
            "target": "branch",
            "enforcement": "active",
            "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
            "bypass_actors": bypass,
            "rules": [
                {"type": "deletion"},
                {"type": "non_fast_forward"},
                {"type": "pull_request", "parameters": review},
                {"type": "required_status_checks", "parameters": checks},
            ],
        }
    }


def protection_of(rulesets: Sequence[Mapping[str, Any]], ids: Mapping[str, int]) -> BranchProtection | None:
    """Return the protection of main that rulesets amount to: the strictest of each rule.

    Args:
        rulesets: all rulesets.
        ids: slug → id of the apps. An app is exempt if every ruleset exempts it.
    """
    active = [
        found
        for found in rulesets
        if found["enforcement"] == "active"
        and {"~DEFAULT_BRANCH", "~ALL", f"refs/heads/{MAIN}"} & set(found["conditions"]["ref_name"]["include"])
        and {rule["type"] for rule in found["rules"]} & {"pull_request", "required_status_checks"}
    ]
    if not active:
        return None
    rules = [(rule["type"], rule.get("parameters") or {}) for found in active for rule in found["rules"]]
    reviews = [found for kind, found in rules if kind == "pull_request"]
    checks = [found for kind, found in rules if kind == "required_status_checks"]
    contexts = [check["context"] for found in checks for check in found.get("required_status_checks", [])]
    exempt = [
        {each["actor_id"] for each in found["bypass_actors"] if each["actor_type"] == "Integration"} for found in active
    ]
    return BranchProtection(
        required_checks=tuple(dict.fromkeys(contexts)),
        strict=any(found.get("strict_required_status_checks_policy") for found in checks),
        approvals=max((found.get("required_approving_review_count", 0) for found in reviews), default=0),
        code_owners=any(found.get("require_code_owner_review") for found in reviews),
        dismiss_stale=any(found.get("dismiss_stale_reviews_on_push") for found in reviews),
        last_push=any(found.get("require_last_push_approval") for found in reviews),
        bypass=tuple(slug for slug, number in ids.items() if all(number in listed for listed in exempt)),
    )


def _list_rulesets(server: GitHubServer, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    return [_shown(server, number, found) for number, found in _rulesets_in(server.settled()).items()]


def _shown(server: GitHubServer, number: str, found: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: found[key] for key in ("name", "target", "enforcement")}
    return {"id": int(number), "source_type": "Repository", "source": server.full_name, **kept}


def _get_ruleset(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    found = _rulesets_in(server.settled()).get(match["id"])
    if found is None:
        raise _NOT_FOUND
    details = {key: found[key] for key in ("conditions", "rules")}
    # GitHub shows the bypass list to those who may change the ruleset.
    bypass = {"bypass_actors": found["bypass_actors"]} if administers(server, actor) else {}
    may = "always" if bypasses(actor, server.settings) else "never"
    return {**_shown(server, match["id"], found), **details, **bypass, "current_user_can_bypass": may}


def _put_ruleset(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    number = match.groupdict().get("id")

    def change(settings: RepositorySettings, state: State) -> RepositorySettings:
        rulesets, ids = _rulesets_in(state), _app_ids(state)
        if number is not None and number not in rulesets:
            raise _NOT_FOUND
        present = rulesets.get(number or "", {"target": "branch", "bypass_actors": [], "rules": []})
        found = {**present, **fields}
        if not found.get("name") or found.get("enforcement") not in ("active", "disabled", "evaluate"):
            raise RequestDeniedError(422, "Validation Failed: name and enforcement are required")
        names = [each["name"] for key, each in rulesets.items() if key != number]
        if found["name"] in names:
            raise RequestDeniedError(422, "Validation Failed: Name must be unique")
        for each in found["bypass_actors"]:
            if each["actor_type"] == "Integration" and each["actor_id"] not in ids.values():
                raise RequestDeniedError(422, "Validation Failed: Actor must be an app installed on the repository")
        rulesets[number or str(max(map(int, rulesets), default=0) + 1)] = found
        state["rulesets"] = rulesets
        return replace(settings, protection=protection_of(list(rulesets.values()), ids))

    _change(server, change)
    return {}


# --- environments ---


def _list_environments(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    state = server.settled()
    details, environments = state.get("environment details", {}), []
    for name, branches in server.settings.environments.items():
        kept = details.get(name, {})
        custom = {"protected_branches": False, "custom_branch_policies": True}
        policy = kept.get("deployment_branch_policy", custom if branches else None)
        rules: list[dict[str, Any]] = [{"type": "branch_policy"}] if policy else []
        if kept.get("wait_timer"):
            rules.append({"type": "wait_timer", "wait_timer": kept["wait_timer"]})
        if kept.get("reviewers"):
            reviewers = [
                {"type": each["type"], "reviewer": {"id": each["id"], **_name_of(state, each)}}
                for each in kept["reviewers"]
            ]
            own = bool(kept.get("prevent_self_review"))
            rules.append({"type": "required_reviewers", "reviewers": reviewers, "prevent_self_review": own})
        environments.append(
            {
                "name": name,
                "protection_rules": rules,
                "deployment_branch_policy": policy,
                "can_admins_bypass": kept.get("can_admins_bypass", True),
            }
        )
    return {"total_count": len(environments), "environments": environments}


def _name_of(state: State, reviewer: Mapping[str, Any]) -> dict[str, str]:
    if reviewer["type"] == "Team":
        return {"slug": next(slug for slug, number in _team_ids(state).items() if number == reviewer["id"])}
    return {"login": next(login for login, number in _user_ids(state).items() if number == reviewer["id"])}


def _put_environment(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    policy = fields.get("deployment_branch_policy")
    if policy is not None and policy.get("protected_branches") == policy.get("custom_branch_policies"):
        raise RequestDeniedError(422, "protected_branches and custom_branch_policies cannot have the same value")

    def change(settings: RepositorySettings, state: State) -> RepositorySettings:
        name = settings.find_environment(match["name"]) or match["name"]
        state.setdefault("environment details", {})[name] = dict(fields)
        patterns = settings.environments.get(name, ()) if policy and policy["custom_branch_policies"] else ()
        # A policy without a pattern admits no branch: an empty tuple would admit all of them.
        patterns = patterns or (() if policy is None else (MAIN,) if policy["protected_branches"] else (_NO_BRANCH,))
        return replace(settings, environments={**settings.environments, name: patterns})

    _change(server, change)
    return {"name": server.settings.find_environment(match["name"])}


def _delete_environment(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    name = _environment_of(server, match)

    def change(settings: RepositorySettings, state: State) -> RepositorySettings:
        state.get("environment details", {}).pop(name, None)
        return replace(settings, environments={key: v for key, v in settings.environments.items() if key != name})

    _change(server, change)
    Vault(server.folder).forget(name)


_NO_BRANCH = "~"
"""Pattern that no branch has: git does not allow the character in names."""


def _policies(server: GitHubServer, name: str) -> list[dict[str, Any]]:
    listed = [each for each in server.settings.environments[name] if each != _NO_BRANCH]
    return [{"id": number, "name": each, "type": "branch"} for number, each in enumerate(listed, start=1)]


def _list_policies(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    found = _policies(server, _environment_of(server, match))
    return {"total_count": len(found), "branch_policies": found}


def _add_policy(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    name = _environment_of(server, match)
    _set_policies(server, name, [*(each["name"] for each in _policies(server, name)), fields["name"]])


def _delete_policy(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    name = _environment_of(server, match)
    _set_policies(server, name, [each["name"] for each in _policies(server, name) if each["id"] != int(match["id"])])


def _set_policies(server: GitHubServer, name: str, patterns: Sequence[str]) -> None:
    found = tuple(dict.fromkeys(patterns)) or (_NO_BRANCH,)
    _change(server, lambda settings, _: replace(settings, environments={**settings.environments, name: found}))


# --- variables and secrets ---


def _environment_of(server: GitHubServer, match: re.Match[str]) -> str:
    return _known_environment(server, match.groupdict().get("name") or "")


def _known_environment(server: GitHubServer, name: str) -> str:
    """Return the name that an environment was created with; "" for the repository."""
    found = server.settings.find_environment(name) if name else ""
    if found is None:
        raise _NOT_FOUND
    return found


def _list_variables(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    where = _environment_of(server, match)
    _need_collaborator(server, actor, "read", "variables", where)
    found = Vault(server.folder).own("variables", where)
    return {"total_count": len(found), "variables": [{"name": key, "value": value} for key, value in found.items()]}


def _list_secrets(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    where = _environment_of(server, match)
    _need_collaborator(server, actor, "read", "secrets", where)
    found = Vault(server.folder).own("secrets", where)
    return {"total_count": len(found), "secrets": [{"name": key} for key in found]}


def _need_collaborator(server: GitHubServer, actor: Actor, level: str, what: str, environment: str) -> None:
    """Check that a caller may read or write variables or secrets. For a user, write access is enough, as on GitHub.

    Args:
        server: the server.
        actor: the caller.
        level: "read" or "write".
        what: "variables" or "secrets", the permission that an app needs.
        environment: the environment that they belong to, for which an app needs `environments`; "" for the repository.
    """
    if actor.kind == "user":
        if actor.login not in server.settings.users:
            raise _NOT_FOUND
    else:
        actor.need(level, "environments" if environment else what)


def _add_variable(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    vault, where = Vault(server.folder), _environment_of(server, match)
    _need_collaborator(server, actor, "write", "variables", where)
    name = str(fields["name"]).upper()
    if name in vault.own("variables", where):
        raise RequestDeniedError(409, "Already exists - Variable already exists")
    vault.set_variable(name, str(fields["value"]), where)


def _change_variable(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    vault, where = Vault(server.folder), _environment_of(server, match)
    _need_collaborator(server, actor, "write", "variables", where)
    if match["variable"].upper() not in vault.own("variables", where):
        raise _NOT_FOUND
    vault.set_variable(match["variable"], str(fields["value"]), where)


def set_environment_secret(server: GitHubServer, actor: Actor, name: str, value: str, environment: str) -> None:
    """Set a secret of an environment, or of the repository if it is "".

    Raises:
        RequestDeniedError: the environment does not exist, or the caller may not.
    """
    _need_collaborator(server, actor, "write", "secrets", environment)
    Vault(server.folder).set_secret(name, value, _known_environment(server, environment))


# --- Actions ---


def _get_actions(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    enabled = server.settings.actions_enabled
    return {"enabled": enabled, "allowed_actions": "all"} if enabled else {"enabled": False}


def _put_actions(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    _change(server, lambda settings, _: replace(settings, actions_enabled=bool(fields["enabled"])))


def _get_token(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    settings = server.settings
    return {
        "default_workflow_permissions": "write" if settings.write_by_default else "read",
        "can_approve_pull_request_reviews": settings.actions_open_pull_requests,
    }


def _put_token(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    level = fields.get("default_workflow_permissions", "read")
    may = bool(fields.get("can_approve_pull_request_reviews", False))
    _change(
        server,
        lambda settings, _: replace(settings, write_by_default=level == "write", actions_open_pull_requests=may),
    )


def _get_fork_approval(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    return {"approval_policy": server.settings.fork_approval}


def _put_fork_approval(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    _need_administrator(server, actor)
    policy = str(fields.get("approval_policy"))
    if policy not in FORK_POLICIES:
        raise RequestDeniedError(422, f"Invalid request: approval_policy is none of {', '.join(FORK_POLICIES)}")
    _change(server, lambda settings, _: replace(settings, fork_approval=policy))


def list_workflows(server: GitHubServer) -> list[dict[str, Any]]:
    """Return `id`, `name`, `path` and `state` of each workflow on main."""
    commit = server.repository.resolve_ref(MAIN)
    files = server.workflow_files(commit) if commit else {}
    found = []
    for number, (path, content) in enumerate(files.items(), start=1):
        name = re.search(r"^name: *(.+)$", content.decode(errors="replace"), re.MULTILINE)
        state = server.settings.disabled_workflows.get(path, "active")
        found.append({"id": number, "name": name[1].strip() if name else path, "path": path, "state": state})
    return found


def _list_workflows(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    found = list_workflows(server)
    return {"total_count": len(found), "workflows": found}


def _enable_workflow(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("write", "actions")
    wanted = match["workflow"]
    path = next((each["path"] for each in list_workflows(server) if wanted == str(each["id"])), None)
    if path is None:
        raise _NOT_FOUND
    _change(
        server,
        lambda settings, _: replace(
            settings, disabled_workflows={key: why for key, why in settings.disabled_workflows.items() if key != path}
        ),
    )


def _get_subject(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    settings = server.settings
    keys = list(settings.subject_keys)
    custom = {"include_claim_keys": keys} if keys else {}
    return {"use_default": not keys, "use_immutable_subject": settings.subject_with_ids, **custom}


# --- labels, owners, the app, the organisation ---


def _list_labels(server: GitHubServer, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    return [{"name": name} for name in server.settings.labels]


def _add_label(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    actor.need("write", "issues", "pull-requests")
    name = str(fields["name"])
    if name.lower() in {label.lower() for label in server.settings.labels}:
        raise RequestDeniedError(422, "Validation Failed: already_exists")
    _change(server, lambda settings, _: replace(settings, labels=(*settings.labels, name)))
    return {"name": name}


def _owner_errors(server: GitHubServer, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    commit, settings = str(server.repository.resolve_ref(MAIN)), server.settings
    files = server.repository.read_files(commit, CODEOWNERS_PATHS)
    path = next((each for each in CODEOWNERS_PATHS if each in files), None)
    if path is None:
        raise _NOT_FOUND
    known = {name.lower() for name in (*settings.users, *settings.teams)}
    errors = []
    for number, line in enumerate(files[path].decode(errors="replace").splitlines(), start=1):
        for owner in sorted(all_owners(read_owners(line)) - known):
            error = {"line": number, "column": line.lower().index(f"@{owner}") + 1, "kind": "Unknown owner"}
            errors.append({**error, "path": path, "source": line, "message": f"Unknown owner on line {number}"})
    return {"errors": errors}


def _team_ids(state: State) -> dict[str, int]:
    owner = f"{state['repository'].split('/')[0]}/".lower()
    names = [name for name in state["settings"]["teams"] if name.lower().startswith(owner)]
    return {name[len(owner) :]: number for number, name in enumerate(sorted(names), start=1)}


def _user_ids(state: State) -> dict[str, int]:
    return {login: number for number, login in enumerate(sorted(state["settings"]["users"]), start=101)}


def _app(state: State, slug: str) -> dict[str, Any]:
    for client_id, found in state["apps"].items():
        if found["slug"] == slug:
            permissions = {scope.replace("-", "_"): level for scope, level in found["permissions"].items()}
            return {"id": _app_ids(state)[slug], "slug": slug, "client_id": client_id, "permissions": permissions}
    raise _NOT_FOUND


def request_elsewhere(server: GitHubServer, actor: Actor, method: str, path: str) -> Any:
    """Answer a request outside of the repository: about an app, a user, or the organisation that owns it.

    Raises:
        RequestDeniedError: there is no such thing (404), or it is not implemented here (501).
    """
    state = server.settled()
    owner = server.full_name.split("/")[0]
    if method != "GET":
        raise RequestDeniedError(501, f"the laptop's GitHub does not implement {method} {path}")
    if path.startswith("apps/"):
        return _app(state, path.removeprefix("apps/"))
    if path.startswith("users/"):
        login = path.removeprefix("users/")
        if login not in _user_ids(state):
            raise _NOT_FOUND
        return {"login": login, "id": _user_ids(state)[login], "type": "User"}
    if path == f"orgs/{owner}":
        plan = {"plan": {"name": "team"}} if administers(server, actor) else {}
        return {"login": owner, "type": "Organization", **plan}
    if path == f"orgs/{owner}/teams":
        return [{"slug": slug, "id": number} for slug, number in _team_ids(state).items()]
    if path == f"orgs/{owner}/installations":
        if not administers(server, actor):
            raise RequestDeniedError(403, "Must have admin rights to Repository.")
        apps = [_app(state, found["slug"]) for found in state["apps"].values()]
        listed = [
            {"app_id": app["id"], "app_slug": app["slug"], "client_id": app["client_id"], "suspended_at": None}
            | {"permissions": app["permissions"], "repository_selection": "selected"}
            for app in apps
        ]
        return {"total_count": len(listed), "installations": listed}
    raise _NOT_FOUND


_WHERE = r"(?:environments/(?P<name>[^/]+)|actions)"

ROUTES: Mapping[tuple[str, str], Route] = {
    ("GET", r"rulesets"): _list_rulesets,
    ("POST", r"rulesets"): _put_ruleset,
    ("GET", r"rulesets/(?P<id>\d+)"): _get_ruleset,
    ("PUT", r"rulesets/(?P<id>\d+)"): _put_ruleset,
    ("GET", r"environments"): _list_environments,
    ("PUT", r"environments/(?P<name>[^/]+)"): _put_environment,
    ("DELETE", r"environments/(?P<name>[^/]+)"): _delete_environment,
    ("GET", r"environments/(?P<name>[^/]+)/deployment-branch-policies"): _list_policies,
    ("POST", r"environments/(?P<name>[^/]+)/deployment-branch-policies"): _add_policy,
    ("DELETE", r"environments/(?P<name>[^/]+)/deployment-branch-policies/(?P<id>\d+)"): _delete_policy,
    ("GET", rf"{_WHERE}/variables"): _list_variables,
    ("POST", rf"{_WHERE}/variables"): _add_variable,
    ("PATCH", rf"{_WHERE}/variables/(?P<variable>\w+)"): _change_variable,
    ("GET", rf"{_WHERE}/secrets"): _list_secrets,
    ("GET", r"actions/permissions"): _get_actions,
    ("PUT", r"actions/permissions"): _put_actions,
    ("GET", r"actions/permissions/workflow"): _get_token,
    ("PUT", r"actions/permissions/workflow"): _put_token,
    ("GET", r"actions/permissions/fork-pr-contributor-approval"): _get_fork_approval,
    ("PUT", r"actions/permissions/fork-pr-contributor-approval"): _put_fork_approval,
    ("GET", r"actions/workflows"): _list_workflows,
    ("PUT", r"actions/workflows/(?P<workflow>\d+)/enable"): _enable_workflow,
    ("GET", r"actions/oidc/customization/sub"): _get_subject,
    ("GET", r"labels"): _list_labels,
    ("POST", r"labels"): _add_label,
    ("GET", r"codeowners/errors"): _owner_errors,
}
