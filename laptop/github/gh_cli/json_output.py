"""Fields for `gh --json`, and paths for `--jq`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.merge_rules import PullRequestRecord
from laptop.github.forge.webhook_event import SERVER_URL
from laptop.github.gh_cli.arguments import (
    Arguments,
    UsageError,
)

_STEP = re.compile(r"\.(?P<name>[A-Za-z_]\w*)|\.?\[(?P<index>(?:-?\d+)?)\]")


def pull_fields(server: GitHubServer, pull: PullRequestRecord) -> dict[str, Callable[[], Any]]:
    """Return the fields of a pull request for `--json`, as functions: only the selected ones are computed."""

    def decision() -> str:
        if any(review.state == "CHANGES_REQUESTED" for review in pull.reviews):
            return "CHANGES_REQUESTED"
        rules = server.settings.protection
        if rules is None:
            return ""
        reasons = [reason for reason in server.blockers(pull) if "approval" in reason]
        return "REVIEW_REQUIRED" if reasons else "APPROVED"

    def merge_state() -> str:
        facts = server.merge_facts(pull)
        if facts.conflict:
            return "DIRTY"
        return "BLOCKED" if server.blockers(pull) else ("BEHIND" if facts.behind else "CLEAN")

    def mergeable() -> str:
        return (
            "UNKNOWN" if pull.state != "OPEN" else ("CONFLICTING" if server.merge_facts(pull).conflict else "MERGEABLE")
        )

    return {
        "number": lambda: pull.number,
        "title": lambda: pull.title,
        "body": lambda: pull.body,
        "state": lambda: pull.state,
        "url": lambda: pull_url(server, pull),
        "author": lambda: {"login": pull.author, "is_bot": pull.author.endswith("[bot]")},
        "headRefName": lambda: pull.head,
        "baseRefName": lambda: pull.base,
        "headRefOid": lambda: pull.head_sha,
        "baseRefOid": lambda: pull.base_sha,
        "isCrossRepository": lambda: bool(pull.fork),
        "labels": lambda: [{"name": label} for label in pull.labels],
        "isDraft": lambda: False,
        "createdAt": lambda: pull.created_at,
        "updatedAt": lambda: pull.updated_at,
        "mergedAt": lambda: pull.merged_at or None,
        "mergedBy": lambda: {"login": pull.merged_by} if pull.merged_by else None,
        "mergeCommit": lambda: {"oid": pull.merge_commit} if pull.merge_commit else None,
        "mergeable": mergeable,
        "mergeStateStatus": merge_state,
        "reviewDecision": decision,
        "reviews": lambda: [
            {"author": {"login": r.author}, "state": r.state, "body": r.body, "submittedAt": r.submitted_at}
            for r in pull.reviews
        ],
        "files": lambda: [{"path": path} for path in server.files(pull)],
        "comments": lambda: [
            {"author": {"login": c["author"]}, "body": c["body"], "createdAt": c["created_at"]}
            for c in server.comments(pull.number)
        ],
        "statusCheckRollup": lambda: [
            {
                "__typename": "CheckRun",
                "name": name,
                "workflowName": check["workflow"],
                "status": "COMPLETED" if check["conclusion"] else "IN_PROGRESS",
                "conclusion": check["conclusion"].upper(),
            }
            for name, check in server.checks(pull.head_sha).items()
        ],
    }


def run_fields(server: GitHubServer, run: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return the fields of a run for `--json`; see `pull_fields`."""

    def jobs() -> list[dict[str, Any]]:
        return [
            {
                "name": job["name"],
                "status": "completed",
                "conclusion": job["conclusion"],
                "steps": [
                    {
                        "name": step["name"],
                        "number": step["number"],
                        "status": "completed",
                        "conclusion": step["conclusion"],
                    }
                    for step in job["steps"]
                ],
            }
            for job in server.run_jobs(run["number"])
        ]

    return {
        "databaseId": lambda: run["number"],
        "number": lambda: run["number"],
        "name": lambda: run["workflow"],
        "workflowName": lambda: run["workflow"],
        "displayTitle": lambda: run["title"],
        "status": lambda: run["status"],
        "conclusion": lambda: run["conclusion"],
        "event": lambda: run["event"],
        "headBranch": lambda: run["branch"],
        "headSha": lambda: run["head_sha"],
        "attempt": lambda: run["attempt"],
        "createdAt": lambda: run["created_at"],
        "url": lambda: f"{SERVER_URL}/{server.full_name}/actions/runs/{run['number']}",
        "jobs": jobs,
    }


def pull_url(server: GitHubServer, pull: PullRequestRecord) -> str:
    """Return the web address of a pull request."""
    return f"{SERVER_URL}/{server.full_name}/pull/{pull.number}"


def pick_fields(fields: Mapping[str, Callable[[], Any]], names: str) -> dict[str, Any]:
    """Return the selected fields.

    Args:
        fields: name → function.
        names: names separated by commas.

    Raises:
        UsageError: a name is unknown.
    """
    wanted = names.split(",")
    for name in wanted:
        if name not in fields:
            raise UsageError(f"unknown JSON field {name!r}; known here: {', '.join(sorted(fields))}")
    return {name: fields[name]() for name in wanted}


def print_json(value: Any, given: Arguments) -> None:
    """Print a value as JSON, or the part that `--jq` selects."""
    if given.has("--jq"):
        print_query(value, given.one("--jq"))
    else:
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_query(value: Any, query: str) -> None:
    """Print the part of a value that a jq path selects (`.a.b`, `.[0].a`, `.[].a`); text without quotes.

    Raises:
        UsageError: the query is not such a path, or does not fit the value.
    """
    values, position = [value], 0
    while position < len(query) and query != ".":
        match = _STEP.match(query, position)
        if match is None:
            raise UsageError(f"--jq: expected a path such as .a.b, .[0] or .[].a, found {query!r}")
        step = match["name"] if match["name"] is not None else match["index"]
        values = [found for item in values for found in _follow(item, step, named=match["name"] is not None)]
        position = match.end()
    for item in values:
        plain = isinstance(item, str)
        print(
            item if plain else json.dumps(item, ensure_ascii=False, separators=(",", ":")) if item is not None else ""
        )


def _follow(value: Any, step: str, *, named: bool) -> list[Any]:
    if named and isinstance(value, dict):
        return [value.get(step)]
    if value is None:
        return [None]
    if not named and isinstance(value, list):
        if step == "":
            return value
        return [value[int(step)] if -len(value) <= int(step) < len(value) else None]
    raise UsageError(f"--jq: {step!r} does not apply to a {type(value).__name__}")
