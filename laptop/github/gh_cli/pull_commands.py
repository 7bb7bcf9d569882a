"""The commands `gh pr …`."""

from __future__ import annotations

from collections.abc import Sequence

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.gh_cli.arguments import (
    PULL_SHORT,
    UsageError,
    read_arguments,
    read_text,
)
from laptop.github.gh_cli.json_output import pick_fields, print_json, pull_fields, pull_url


def pr_create(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Open a pull request and print its address."""
    given = read_arguments(arguments, "--title --body-file --head --base --label", "", PULL_SHORT, 0)
    pull = server.open_pull_request(
        actor,
        title=given.one("--title"),
        body=read_text(given.one("--body-file")),
        head=given.one("--head"),
        base=given.one("--base"),
        labels=[label for value in given.options.get("--label", []) for label in value.split(",")],
    )
    print(pull_url(server, pull))


def pr_list(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """List pull requests."""
    given = read_arguments(arguments, "--head --base --state --label --limit --json --jq", "", PULL_SHORT, 0)
    actor.need("read", "pull-requests")
    state = given.one("--state", "open")
    if state not in ("open", "closed", "merged", "all"):
        raise UsageError(f"--state: expected open, closed, merged or all, found {state!r}")
    wanted = {"open": ("OPEN",), "closed": ("CLOSED", "MERGED"), "merged": ("MERGED",)}
    found = [
        pull
        for pull in server.pull_requests()
        if (state == "all" or pull.state in wanted[state])
        and pull.head == given.one("--head", pull.head)
        and pull.base == given.one("--base", pull.base)
        and all(label in pull.labels for label in given.options.get("--label", []))
    ][: int(given.one("--limit", "30"))]
    if given.has("--json"):
        print_json([pick_fields(pull_fields(server, pull), given.one("--json")) for pull in found], given)
        return
    for pull in found:
        print(f"{pull.number}\t{pull.title}\t{pull.head}\t{pull.state}\t{pull.created_at}")


def pr_view(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Show a pull request."""
    given = read_arguments(arguments, "--json --jq", "--comments", {**PULL_SHORT, "-c": "--comments"}, 1)
    actor.need("read", "pull-requests")
    pull = server.pull_request(given.number())
    if given.has("--json"):
        print_json(pick_fields(pull_fields(server, pull), given.one("--json")), given)
        return
    about = {
        "title": pull.title,
        "state": pull.state,
        "author": pull.author,
        "number": pull.number,
        "url": pull_url(server, pull),
    }
    comments = (
        [(comment["author"], comment["body"]) for comment in server.comments(pull.number)]
        if given.has("--comments")
        else []
    )
    for name, value in about.items():
        print(f"{name}:\t{value}")
    for who, text in [("", pull.body), *comments]:
        print(f"--\n{who}:\n{text}" if who else f"--\n{text}")


def pr_comment(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Comment on a pull request."""
    given = read_arguments(arguments, "--body-file", "", PULL_SHORT, 1)
    item = server.comment(actor, given.number(), read_text(given.one("--body-file")))
    print(f"{pull_url(server, server.pull_request(given.number()))}#issuecomment-{item['id']}")


def pr_review(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Approve a pull request."""
    given = read_arguments(arguments, "", "--approve", PULL_SHORT, 1)
    if not given.has("--approve"):
        raise UsageError("--approve is required here")
    server.review(actor, given.number(), approve=True)


def pr_merge(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Merge a pull request."""
    given = read_arguments(arguments, "", "--squash --merge", PULL_SHORT, 1)
    methods = [name for name in ("--squash", "--merge") if given.has(name)]
    if len(methods) != 1:
        raise UsageError("one of --squash and --merge is required here")
    server.merge(actor, given.number(), methods[0].removeprefix("--"))


def pr_close(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Close a pull request."""
    given = read_arguments(arguments, "", "", PULL_SHORT, 1)
    server.close(actor, given.number())
