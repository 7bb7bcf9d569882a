"""The part of GitHub's REST API that our code uses, on the laptop's forge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from laptop.github import payloads
from laptop.github.access import Actor, RefusedError
from laptop.github.forge import MAIN, Forge
from laptop.github.settings import Settings

Handler = Callable[[Forge, Actor, "re.Match[str]", Mapping[str, Any]], Any]


def request(forge: Forge, actor: Actor, method: str, path: str, fields: Mapping[str, Any]) -> Any:
    """Answer one request.

    Args:
        method: GET, POST, PATCH.
        path: `repos/owner/name/…`, without a query.
        fields: the query or the body.

    Returns:
        The JSON answer; None for an empty one.

    Raises:
        RefusedError: not found, not allowed, or not known here (501).
    """
    name = forge.repository
    if not re.match(rf"repos/{re.escape(name)}(?:/|$)", path):
        raise RefusedError(404, "Not Found", fix=f"the repository here is {name}")
    below = path.removeprefix(f"repos/{name}").strip("/")
    for (known, pattern), handler in _ROUTES.items():
        match = re.fullmatch(pattern, below)
        if match is not None and method == known:
            return handler(forge, actor, match, fields)
    raise RefusedError(501, f"the laptop's GitHub does not know {method} {path}")


def _list_comments(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "issues", "pull-requests")
    number = forge.pull_request(int(match["number"])).number
    return [payloads.comment(item, forge.repository) for item in forge.comments(number)]


def _add_comment(forge: Forge, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    return payloads.comment(forge.comment(actor, int(match["number"]), _text(fields, "body")), forge.repository)


def _edit_comment(forge: Forge, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    return payloads.comment(forge.edit_comment(actor, int(match["id"]), _text(fields, "body")), forge.repository)


def _files(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    return [{"filename": path, "status": status} for path, status in forge.file_changes(int(match["number"]))]


def _reviews(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    return [payloads.review(item) for item in forge.pull_request(int(match["number"])).reviews]


def _pull(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    pull = forge.pull_request(int(match["number"]))
    mergeable = None if pull.state != "OPEN" else not forge.facts(pull).conflict
    return payloads.pull_request(pull, _repository(forge), mergeable=mergeable)


def _pulls_of_commit(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    found = [pull for pull in forge.pull_requests() if match["commit"] in forge.commits(pull)]
    return [payloads.pull_request(pull, _repository(forge), mergeable=None) for pull in found]


def _protection(forge: Forge, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "administration")
    rules = forge.settings.protection
    if rules is None or match["branch"] != MAIN:
        raise RefusedError(404, "Branch not protected")
    return {
        "required_status_checks": {
            "strict": rules.strict,
            "contexts": list(rules.required_checks),
            "checks": [{"context": name, "app_id": None} for name in rules.required_checks],
        },
        "required_pull_request_reviews": {
            "dismiss_stale_reviews": rules.dismiss_stale,
            "require_code_owner_reviews": rules.code_owners,
            "required_approving_review_count": rules.approvals,
        },
        "enforce_admins": {"enabled": True},
        "allow_force_pushes": {"enabled": False},
        "allow_deletions": {"enabled": False},
    }


def _environments(forge: Forge, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    environments = [
        {
            "name": name,
            "protection_rules": [{"type": "branch_policy"}] if branches else [],
            "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True}
            if branches
            else None,
        }
        for name, branches in forge.settings.environments.items()
    ]
    return {"total_count": len(environments), "environments": environments}


def _rulesets(forge: Forge, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    if forge.settings.protection is None:
        return []
    about = {"source_type": "Repository", "source": forge.repository, "enforcement": "active"}
    return [{"id": 1, "name": MAIN, "target": "branch", **about}]


def _ruleset(forge: Forge, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    settings: Settings = forge.settings
    rules = settings.protection
    if rules is None:
        raise RefusedError(404, "Not Found")
    review = {
        "dismiss_stale_reviews_on_push": rules.dismiss_stale,
        "require_code_owner_review": rules.code_owners,
        "required_approving_review_count": rules.approvals,
    }
    checks = {
        "strict_required_status_checks_policy": rules.strict,
        "required_status_checks": [{"context": name} for name in rules.required_checks],
    }
    return {
        "id": 1,
        "name": MAIN,
        "target": "branch",
        "enforcement": "active",
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
        "rules": [
            {"type": "deletion"},
            {"type": "non_fast_forward"},
            {"type": "pull_request", "parameters": review},
            {"type": "required_status_checks", "parameters": checks},
        ],
    }


def _dispatch(forge: Forge, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> None:
    client_payload = fields.get("client_payload") or {}
    if not isinstance(client_payload, Mapping):
        raise RefusedError(422, "Invalid request: client_payload is not an object")
    forge.repository_dispatch(actor, _text(fields, "event_type"), client_payload)


def _about(forge: Forge, _actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    return _repository(forge)


def _repository(forge: Forge) -> dict[str, Any]:
    return payloads.repository(forge.repository, private=forge.settings.private)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise RefusedError(422, f'Invalid request. "{name}" wasn\'t supplied.')
    return value


_ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", ""): _about,
    ("GET", r"issues/(?P<number>\d+)/comments"): _list_comments,
    ("POST", r"issues/(?P<number>\d+)/comments"): _add_comment,
    ("PATCH", r"issues/comments/(?P<id>\d+)"): _edit_comment,
    ("GET", r"pulls/(?P<number>\d+)"): _pull,
    ("GET", r"pulls/(?P<number>\d+)/files"): _files,
    ("GET", r"pulls/(?P<number>\d+)/reviews"): _reviews,
    ("GET", r"commits/(?P<commit>[0-9a-f]{40})/pulls"): _pulls_of_commit,
    ("GET", r"branches/(?P<branch>[^/]+)/protection"): _protection,
    ("GET", r"environments"): _environments,
    ("GET", r"rulesets"): _rulesets,
    ("GET", r"rulesets/1"): _ruleset,
    ("POST", r"dispatches"): _dispatch,
}
