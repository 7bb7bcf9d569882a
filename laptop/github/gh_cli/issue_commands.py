"""The commands `gh issue …`."""

from __future__ import annotations

from typing import Any

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.issue_records import load_issue
from laptop.github.gh_cli.arguments import Arguments, GhCommand, UsageError


def issue_list(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """List issues."""
    actor.need("read", "issues")
    state, label = given.one("--state", "open"), given.one("--label", "")
    if state not in ("open", "closed", "all"):
        raise UsageError(f"--state: expected open, closed or all, found {state!r}")
    for one in server.issues():
        if state in (one["state"], "all") and (not label or label in one["labels"]):
            print(f"{one['number']}\t{one['state'].upper()}\t{one['title']}\t{', '.join(one['labels'])}")


def issue_view(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Show an issue."""
    actor.need("read", "issues")
    found = _named(server, given)
    for name in ("title", "state", "author"):
        print(f"{name}:\t{found[name]}")
    print(f"labels:\t{', '.join(found['labels'])}\n--\n{found['body']}")
    if given.has("--comments"):
        for comment in server.comments(found["number"]):
            print(f"author:\t{comment['author']}\n--\n{comment['body']}\n--")


def issue_close(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Close an issue."""
    found = _named(server, given)
    if given.has("--comment"):
        server.comment(actor, found["number"], given.one("--comment"))
    server.edit_issue(actor, found["number"], {"state": "closed"})


def issue_comment(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Comment on an issue."""
    server.comment(actor, _named(server, given)["number"], given.text("--body") or "")


def _named(server: GitHubServer, given: Arguments) -> dict[str, Any]:
    text = given.operands[0].removeprefix("#").rpartition("/")[2]
    if not text.isdecimal():
        raise UsageError(f"expected the number of an issue, found {given.operands[0]!r}")
    return load_issue(server.settled(), int(text))


_ISSUE = "NUMBER | URL"

ISSUE_COMMANDS = (
    GhCommand("issue list", issue_list, valued="--state/-s --label/-l"),
    GhCommand("issue view", issue_view, _ISSUE, (1, 1), "", "--comments/-c"),
    GhCommand("issue close", issue_close, _ISSUE, (1, 1), "--comment/-c"),
    GhCommand("issue comment", issue_comment, _ISSUE, (1, 1), "--body/-b --body-file/-F"),
)
