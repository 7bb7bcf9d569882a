"""JSON forms of GitHub's webhook payloads and REST answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laptop.github.forge.merge_rules import PullRequestRecord, Review
from laptop.github.forge.webhook_event import SERVER_URL


def user(login: str) -> dict[str, Any]:
    """Return a user or a bot."""
    return {"login": login, "type": "Bot" if login.endswith("[bot]") else "User", "html_url": f"{SERVER_URL}/{login}"}


def repository(name: str, *, private: bool) -> dict[str, Any]:
    """Return the repository `owner/name`."""
    owner, short = name.split("/")
    return {
        "name": short,
        "full_name": name,
        "owner": user(owner),
        "private": private,
        "html_url": f"{SERVER_URL}/{name}",
        "clone_url": f"{SERVER_URL}/{name}.git",
        "default_branch": "main",
    }


def pull_request(pull: PullRequestRecord, repo: Mapping[str, Any], *, mergeable: bool | None) -> dict[str, Any]:
    """Return a pull request."""
    head = repository(pull.fork, private=bool(repo["private"])) if pull.fork else dict(repo)
    return {
        "number": pull.number,
        "state": "open" if pull.state == "OPEN" else "closed",
        "title": pull.title,
        "body": pull.body or None,
        "user": user(pull.author),
        "draft": False,
        "merged": pull.state == "MERGED",
        "merged_at": pull.merged_at or None,
        "merged_by": user(pull.merged_by) if pull.merged_by else None,
        "merge_commit_sha": pull.merge_commit or None,
        "mergeable": mergeable,
        "labels": [{"name": label} for label in pull.labels],
        "head": {
            "ref": pull.head,
            "sha": pull.head_sha,
            "repo": head,
            "label": f"{head['owner']['login']}:{pull.head}",
        },
        "base": {
            "ref": pull.base,
            "sha": pull.base_sha,
            "repo": dict(repo),
            "label": f"{repo['owner']['login']}:{pull.base}",
        },
        "created_at": pull.created_at,
        "updated_at": pull.updated_at,
        "html_url": f"{repo['html_url']}/pull/{pull.number}",
    }


def review(item: Review) -> dict[str, Any]:
    """Return a review."""
    return {
        "id": item.id,
        "user": user(item.author),
        "author_association": "COLLABORATOR",  # only collaborators can review here
        "state": item.state,
        "body": item.body,
        "commit_id": item.commit,
        "submitted_at": item.submitted_at,
    }


def comment(item: Mapping[str, Any], repository_name: str) -> dict[str, Any]:
    """Return a comment on an issue or a pull request."""
    return {
        "id": item["id"],
        "user": user(item["author"]),
        "body": item["body"],
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
        "html_url": f"{SERVER_URL}/{repository_name}/pull/{item['issue']}#issuecomment-{item['id']}",
    }
