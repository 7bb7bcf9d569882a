"""Issues in the state: open, edit and list them. They share their numbers and comments with pull requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.github_state import State, take_number, timestamp
from laptop.github.forge.payloads import user
from laptop.github.forge.webhook_event import SERVER_URL

_LONGEST = 65_536
"""Characters of a body; GitHub refuses more."""


def open_issue(state: State, actor: Actor, title: str, body: str, labels: Sequence[str]) -> dict[str, Any]:
    """Open an issue and return its record.

    Raises:
        RequestDeniedError: the title is blank, or the body too long (422).
    """
    _check_texts(title, body)
    now = timestamp()
    record = {
        "number": take_number(state, "issue"),
        "title": title,
        "body": body,
        "author": actor.login,
        "state": "open",
        "labels": list(dict.fromkeys(labels)),
        "created_at": now,
        "updated_at": now,
    }
    _all(state)[str(record["number"])] = record
    return record


def edit_issue(state: State, number: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change the title, the body or the state of an issue, and return its record.

    Raises:
        RequestDeniedError: there is no such issue (404), or a value is not valid (422).
    """
    record = load_issue(state, number)
    changed = {**record, **{key: str(changes[key]) for key in ("title", "body", "state") if key in changes}}
    if changed["state"] not in ("open", "closed"):
        raise RequestDeniedError(422, f"Validation Failed: {changed['state']!r} is not a valid state")
    _check_texts(changed["title"], changed["body"])
    record.update(changed, updated_at=timestamp())
    return record


def load_issue(state: State, number: int) -> dict[str, Any]:
    """Return the record of an issue.

    Raises:
        RequestDeniedError: there is no such issue (404).
    """
    found: dict[str, Any] | None = _all(state).get(str(number))
    if found is None:
        raise RequestDeniedError(404, f"Could not resolve to an Issue with the number of {number}.")
    return found


def load_issues(state: State) -> list[dict[str, Any]]:
    """Return the records of all issues, newest first."""
    return sorted(_all(state).values(), key=lambda one: -int(one["number"]))


def issue_payload(record: Mapping[str, Any], repository_name: str) -> dict[str, Any]:
    """Return an issue as the REST API shows it."""
    return {
        "number": record["number"],
        "title": record["title"],
        "body": record["body"],
        "user": user(str(record["author"])),
        "state": record["state"],
        "labels": [{"name": label} for label in record["labels"]],
        "created_at": record["created_at"],
        "updated_at": record["updated_at"],
        "html_url": f"{SERVER_URL}/{repository_name}/issues/{record['number']}",
    }


def _all(state: State) -> dict[str, Any]:
    issues: dict[str, Any] = state.setdefault("issues", {})
    return issues


def _check_texts(title: str, body: str) -> None:
    if not title.strip():
        raise RequestDeniedError(422, "Validation Failed: title can't be blank")
    if len(body) > _LONGEST:
        raise RequestDeniedError(422, f"Validation Failed: body is too long (maximum is {_LONGEST} characters)")
