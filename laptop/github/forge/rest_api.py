"""The part of GitHub's REST API that the product uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from laptop.github.forge import payloads
from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.git_data_routes import GIT_ROUTES
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.issue_records import issue_payload, load_issue
from laptop.github.forge.repository_creation import MAIN
from laptop.github.forge.settings_routes import ROUTES, administers, request_elsewhere

Handler = Callable[[GitHubServer, Actor, "re.Match[str]", Mapping[str, Any]], Any]


def request(server: GitHubServer, actor: Actor, method: str, path: str, fields: Mapping[str, Any]) -> Any:
    """Answer a request.

    Args:
        server: the server.
        actor: the caller.
        method: GET, POST, PUT, PATCH or DELETE.
        path: `repos/owner/name/…`, or that of an app, a user or the organisation; without a query.
        fields: parameters of the query or the body.

    Returns:
        The JSON answer; None if it is empty.

    Raises:
        RequestDeniedError: not found (404), not allowed (403), invalid (422) or not implemented here (501).
    """
    name = server.full_name
    if not path.startswith("repos/"):
        return request_elsewhere(server, actor, method, path)
    if not re.match(rf"repos/{re.escape(name)}(?:/|$)", path):
        raise RequestDeniedError(404, "Not Found", fix=f"use the repository {name}")
    below = path.removeprefix(f"repos/{name}").strip("/")
    for (known, pattern), handler in _ROUTES.items():
        match = re.fullmatch(pattern, below)
        if match is not None and method == known:
            return handler(server, actor, match, fields)
    raise RequestDeniedError(501, f"the laptop's GitHub does not implement {method} {path}")


def _list_comments(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "issues", "pull-requests")
    number, state = int(match["number"]), server.settled()
    if str(number) not in state["pulls"]:
        load_issue(state, number)
    return [payloads.comment(item, server.full_name) for item in server.comments(number)]


def _list_issues(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    """Return the open issues and pull requests, newest first; GitHub counts pull requests as issues, too."""
    actor.need("read", "issues")
    pulls = [
        {**payloads.pull_request(pull, _repository(server), mergeable=None), "pull_request": {}}
        for pull in server.pull_requests()
        if pull.state == "OPEN"
    ]
    issues = [issue_payload(one, server.full_name) for one in server.issues() if one["state"] == "open"]
    return sorted([*pulls, *issues], key=lambda one: -int(one["number"]))


def _open_issue(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    labels = fields.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RequestDeniedError(422, "Invalid request: labels is not a list of names")
    made = server.open_issue(actor, _text(fields, "title"), str(fields.get("body") or ""), labels)
    return issue_payload(made, server.full_name)


def _issue(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "issues")
    return issue_payload(load_issue(server.settled(), int(match["number"])), server.full_name)


def _edit_issue(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    return issue_payload(server.edit_issue(actor, int(match["number"]), fields), server.full_name)


def _add_comment(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    return payloads.comment(server.comment(actor, int(match["number"]), _text(fields, "body")), server.full_name)


def _edit_comment(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    return payloads.comment(server.edit_comment(actor, int(match["id"]), _text(fields, "body")), server.full_name)


def _files(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    return [{"filename": path, "status": status} for path, status in server.file_changes(int(match["number"]))]


def _reviews(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    return [payloads.review(item) for item in server.pull_request(int(match["number"])).reviews]


def _list_pulls(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    """Return the open pull requests, newest first."""
    actor.need("read", "pull-requests")
    pulls = [pull for pull in server.pull_requests() if pull.state == "OPEN"]
    return [payloads.pull_request(pull, _repository(server), mergeable=None) for pull in pulls]


def _workflow_runs(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    """Return the runs of a workflow file, newest first."""
    actor.need("read", "actions")
    found = [run for run in server.runs() if run["path"].rsplit("/", 1)[-1] == match["file"]]
    found = [run for run in found if fields.get("head_sha", run["head_sha"]) == run["head_sha"]]
    runs = [
        {
            "id": run["number"],
            "run_attempt": run["attempt"],
            "status": run["status"],
            "conclusion": run["conclusion"] or None,
            "event": run["event"],
            "head_sha": run["head_sha"],
            "head_branch": run["branch"],
            "head_repository": payloads.repository(
                run.get("head_repository") or server.full_name, private=server.settings.private
            ),
            "created_at": run["created_at"],
        }
        for run in found
    ]
    return {"total_count": len(runs), "workflow_runs": runs}


def _pull(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    pull = server.pull_request(int(match["number"]))
    mergeable = None if pull.state != "OPEN" else not server.merge_facts(pull).conflict
    return payloads.pull_request(pull, _repository(server), mergeable=mergeable)


def _pulls_of_commit(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "pull-requests")
    found = [pull for pull in server.pull_requests() if match["commit"] in server.commits(pull)]
    return [payloads.pull_request(pull, _repository(server), mergeable=None) for pull in found]


def _protection(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "administration")
    rules = server.settings.protection
    if rules is None or match["branch"] != MAIN:
        raise RequestDeniedError(404, "Branch not protected")
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


def _run_attempt(server: GitHubServer, actor: Actor, match: re.Match[str], _: Mapping[str, Any]) -> Any:
    actor.need("read", "actions")
    number, attempt = int(match["number"]), int(match["attempt"])
    record = next((run for run in server.runs() if run["number"] == number), None)
    if record is None or not 1 <= attempt <= record["attempt"]:
        raise RequestDeniedError(404, "Not Found")
    newest = attempt == record["attempt"]  # an earlier attempt has ended
    return {
        "id": number,
        "run_attempt": attempt,
        "created_at": record["created_at"],
        "status": record["status"] if newest else "completed",
        "conclusion": (record["conclusion"] or None) if newest else None,
    }


def _run_jobs(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    """Return the jobs of an attempt that have ended. The laptop's runners have no names."""
    attempt = _run_attempt(server, actor, match, fields)
    jobs = [
        {"run_id": attempt["id"], "name": job["name"], "status": "completed", "runner_name": None}
        for job in server.run_jobs(attempt["id"])
    ]
    return {"total_count": len(jobs), "jobs": jobs}


def _dispatch(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> None:
    client_payload = fields.get("client_payload") or {}
    if not isinstance(client_payload, Mapping):
        raise RequestDeniedError(422, "Invalid request: client_payload is not an object")
    server.repository_dispatch(actor, _text(fields, "event_type"), client_payload)


def _about(server: GitHubServer, actor: Actor, _match: re.Match[str], _: Mapping[str, Any]) -> Any:
    settings = server.settings
    is_user, is_admin = actor.login in settings.users, administers(server, actor)
    owner = server.full_name.split("/")[0]
    about = _repository(server)
    return {
        **about,
        "id": settings.repository_id,
        "owner": {**about["owner"], "login": owner, "id": settings.owner_id, "type": "Organization"},
        "visibility": "private" if settings.private else "public",
        "fork": False,
        "is_template": False,
        "permissions": {"admin": is_admin, "maintain": is_admin, "push": is_user, "triage": is_user, "pull": True},
    }


def _repository(server: GitHubServer) -> dict[str, Any]:
    return payloads.repository(server.full_name, private=server.settings.private)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise RequestDeniedError(422, f'Invalid request. "{name}" wasn\'t supplied.')
    return value


_ROUTES: Mapping[tuple[str, str], Handler] = {
    ("GET", ""): _about,
    ("GET", r"issues"): _list_issues,
    ("POST", r"issues"): _open_issue,
    ("GET", r"issues/(?P<number>\d+)"): _issue,
    ("PATCH", r"issues/(?P<number>\d+)"): _edit_issue,
    ("GET", r"issues/(?P<number>\d+)/comments"): _list_comments,
    ("POST", r"issues/(?P<number>\d+)/comments"): _add_comment,
    ("PATCH", r"issues/comments/(?P<id>\d+)"): _edit_comment,
    ("GET", r"pulls"): _list_pulls,
    ("GET", r"pulls/(?P<number>\d+)"): _pull,
    ("GET", r"pulls/(?P<number>\d+)/files"): _files,
    ("GET", r"pulls/(?P<number>\d+)/reviews"): _reviews,
    ("GET", r"commits/(?P<commit>[0-9a-f]{40})/pulls"): _pulls_of_commit,
    ("GET", r"branches/(?P<branch>[^/]+)/protection"): _protection,
    ("GET", r"actions/workflows/(?P<file>[^/]+)/runs"): _workflow_runs,
    ("GET", r"actions/runs/(?P<number>\d+)/attempts/(?P<attempt>\d+)"): _run_attempt,
    ("GET", r"actions/runs/(?P<number>\d+)/attempts/(?P<attempt>\d+)/jobs"): _run_jobs,
    ("POST", r"dispatches"): _dispatch,
    **GIT_ROUTES,
    **ROUTES,
}
