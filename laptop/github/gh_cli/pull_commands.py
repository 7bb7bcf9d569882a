"""The commands `gh pr …`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from laptop.github.forge.actors import Actor
from laptop.github.forge.bare_repository import GitError, git
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.merge_rules import PullRequestRecord
from laptop.github.forge.repository_creation import MAIN
from laptop.github.forge.webhook_event import SERVER_URL
from laptop.github.gh_cli.arguments import Arguments, GhCommand, UsageError
from laptop.github.gh_cli.json_output import pick_fields, print_json, pull_fields, pull_url
from pipelines.declarations.errors import MlopsError

_BUCKETS = {"": "pending", "cancelled": "cancel", "skipped": "skipping", "neutral": "skipping"}
"""Conclusion of a check → the word of `gh pr checks`; `fail` for all that did not pass."""

PENDING_CODE = 8
"""Exit code of `gh pr checks` while a check runs."""


def current_branch() -> str:
    """Return the branch that is checked out in the current folder.

    Raises:
        MlopsError: the folder is not a clone, or no branch is checked out.
    """
    try:
        return git(Path.cwd(), "symbolic-ref", "--quiet", "--short", "HEAD")
    except GitError:
        raise MlopsError("could not determine the current branch", fix="check a branch out, or name it") from None


def find_pull(server: GitHubServer, given: Arguments) -> PullRequestRecord:
    """Return the pull request that a command names by number, URL or branch, or that of the current branch.

    Raises:
        MlopsError: there is no such pull request.
    """
    named = given.operands[0] if given.operands else current_branch()
    number = re.fullmatch(rf"(?:{re.escape(SERVER_URL)}/{re.escape(server.full_name)}/pull/|#)?(\d+)", named)
    if number is not None:
        return server.pull_request(int(number[1]))
    found = [pull for pull in server.pull_requests() if pull.head == named and not pull.fork]
    if not found:
        raise MlopsError(f'no pull requests found for branch "{named}"')
    return next((pull for pull in found if pull.state == "OPEN"), found[0])


def pr_create(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Open a pull request and print its address."""
    head, base = given.one("--head", "") or current_branch(), given.one("--base", MAIN)
    title, body = given.one("--title", ""), given.text("--body")
    if given.has("--fill") or given.has("--fill-first"):
        filled = _fill(server, head, base, first=given.has("--fill-first"))
        title, body = title or filled[0], filled[1] if body is None else body
    if not title or body is None:
        raise UsageError("must provide --title and --body (or --fill) when not running interactively")
    labels = given.many("--label")
    pull = server.open_pull_request(actor, title=title, body=body, head=head, base=base, labels=labels)
    print(pull_url(server, pull))


def _fill(server: GitHubServer, head: str, base: str, *, first: bool) -> tuple[str, str]:
    """Return the title and the body that the commits of a branch give."""
    tips = [server.repository.resolve(f"refs/heads/{name}") for name in (base, head)]
    if tips[1] is None:
        raise MlopsError(f"the branch {head} is not on GitHub", fix=f"git push origin {head}")
    listed = server.repository.run("log", "--reverse", "--format=%H", f"{tips[0]}..{tips[1]}").split()
    messages = [server.repository.run("log", "-1", "--format=%B", commit).strip() for commit in listed]
    if not messages:
        raise MlopsError(f"could not find any commits between {base} and {head}")
    if len(messages) == 1 or first:
        title, _, body = messages[0].partition("\n")
        return title, body.strip()
    words = re.sub(r"[-_]+", " ", head).strip()
    return words[:1].upper() + words[1:], "".join(f"- {message.splitlines()[0]}\n" for message in messages)


def pr_list(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """List pull requests."""
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
        and pull.author == given.one("--author", pull.author)
        and all(label in pull.labels for label in given.many("--label"))
    ][: given.whole("--limit", 30)]
    if given.has("--json"):
        print_json([pick_fields(pull_fields(server, pull), given.one("--json")) for pull in found], given)
        return
    for pull in found:
        print(f"{pull.number}\t{pull.title}\t{pull.head}\t{pull.state}\t{pull.created_at}")


def pr_view(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Show a pull request."""
    actor.need("read", "pull-requests")
    pull = find_pull(server, given)
    if given.has("--json"):
        print_json(pick_fields(pull_fields(server, pull), given.one("--json")), given)
        return
    reviewers = {review.author: review.state.lower().replace("_", " ") for review in pull.reviews}
    about = {
        "title": pull.title,
        "state": pull.state,
        "author": pull.author,
        "labels": ", ".join(pull.labels),
        "reviewers": ", ".join(f"{login} ({state})" for login, state in reviewers.items()),
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


def pr_diff(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Show the changes of a pull request."""
    actor.need("read", "pull-requests")
    pull = find_pull(server, given)
    if given.has("--name-only"):
        print("\n".join(server.files(pull)))
        return
    base = pull.base_sha if pull.state != "OPEN" else server.repository.resolve(f"refs/heads/{pull.base}")
    print(server.repository.run("diff", "--no-color", f"{base or pull.base_sha}...{pull.head_sha}"))


def pr_checks(server: GitHubServer, actor: Actor, given: Arguments) -> int:
    """Show the checks of a pull request."""
    actor.need("read", "checks", "actions", "pull-requests")
    pull = find_pull(server, given)
    while True:
        pull = server.pull_request(pull.number)
        checks = _read_checks(server, pull, required=given.has("--required"))
        if not given.has("--watch") or all(check["bucket"] != "pending" for check in checks):
            break
        time.sleep(given.whole("--interval", 10))
    if not checks:
        kind = "required checks" if given.has("--required") else "checks"
        raise MlopsError(f"no {kind} reported on the '{pull.head}' branch")
    if given.has("--json"):
        fields = [{name: (lambda value=value: value) for name, value in check.items()} for check in checks]
        print_json([pick_fields(each, given.one("--json")) for each in fields], given)
        return 0
    for check in checks:
        print("\t".join((check["name"], check["bucket"], check["time"], check["link"], "")))
    found = {check["bucket"] for check in checks}
    return 1 if found & {"fail", "cancel"} else (PENDING_CODE if "pending" in found else 0)


def _read_checks(server: GitHubServer, pull: PullRequestRecord, *, required: bool) -> list[dict[str, Any]]:
    rules = server.settings.protection
    wanted = rules.required_checks if rules is not None else ()
    found = []
    for name, check in sorted(server.checks(pull.head_sha).items()):
        if required and name not in wanted:
            continue
        conclusion = check["conclusion"]
        bucket = "pass" if conclusion == "success" else _BUCKETS.get(conclusion, "fail")
        seconds = next((job["seconds"] for job in server.run_jobs(check["run"]) if job["name"] == name), 0)
        state = (conclusion or "in_progress").upper()
        found.append(
            {"name": name, "bucket": bucket, "state": state, "workflow": check["workflow"], "time": duration(seconds)}
            | {"link": f"{SERVER_URL}/{server.full_name}/actions/runs/{check['run']}"}
        )
    return found


def duration(seconds: float) -> str:
    """Return a duration as `gh` writes it: `45s`, `1m2s`."""
    whole = round(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def pr_comment(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Comment on a pull request."""
    body = given.text("--body")
    if body is None:
        raise UsageError("--body or --body-file is required when not running interactively")
    pull = find_pull(server, given)
    item = server.comment(actor, pull.number, body)
    print(f"{pull_url(server, pull)}#issuecomment-{item['id']}")


def pr_review(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Approve a pull request, or request changes."""
    if given.has("--approve") == given.has("--request-changes"):
        raise UsageError("one of --approve and --request-changes is required here")
    approve, body = given.has("--approve"), given.text("--body") or ""
    if not approve and not body.strip():
        raise UsageError("body cannot be blank for request-changes review")
    server.review(actor, find_pull(server, given).number, approve=approve, body=body)


def pr_merge(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Merge a pull request."""
    methods = [name for name in ("--squash", "--merge") if given.has(name)]
    if len(methods) != 1:
        raise UsageError("one of --squash and --merge is required here")
    pull = find_pull(server, given)
    server.merge(actor, pull.number, methods[0].removeprefix("--"))
    if given.has("--delete-branch") and not pull.fork:
        server.delete_branch(actor, pull.head)


def pr_close(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Close a pull request."""
    pull = find_pull(server, given)
    if given.has("--comment"):
        server.comment(actor, pull.number, given.one("--comment"))
    server.close(actor, pull.number)
    if given.has("--delete-branch") and not pull.fork:
        server.delete_branch(actor, pull.head)


def pr_reopen(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Open a closed pull request again."""
    pull = find_pull(server, given)
    if given.has("--comment"):
        server.comment(actor, pull.number, given.one("--comment"))
    server.reopen(actor, pull.number)


_PULL = "[NUMBER | URL | BRANCH]"
_BODY = "--body/-b --body-file/-F"
_JSON = "--json --jq/-q"

PULL_COMMANDS = (
    GhCommand(
        "pr create",
        pr_create,
        valued=f"--title/-t {_BODY} --head/-H --base/-B --label/-l",
        flags="--fill/-f --fill-first",
    ),
    GhCommand(
        "pr list",
        pr_list,
        valued=f"--head/-H --base/-B --state/-s --author/-A --label/-l --limit/-L {_JSON}",
    ),
    GhCommand("pr view", pr_view, _PULL, (0, 1), _JSON, "--comments/-c"),
    GhCommand("pr diff", pr_diff, _PULL, (0, 1), "--color", "--name-only"),
    GhCommand(
        "pr checks",
        pr_checks,
        _PULL,
        (0, 1),
        f"--interval/-i {_JSON}",
        "--required --watch",
    ),
    GhCommand("pr comment", pr_comment, _PULL, (0, 1), _BODY),
    GhCommand(
        "pr review",
        pr_review,
        _PULL,
        (0, 1),
        _BODY,
        "--approve/-a --request-changes/-r",
    ),
    GhCommand(
        "pr merge",
        pr_merge,
        _PULL,
        (0, 1),
        flags="--squash/-s --merge/-m --delete-branch/-d",
    ),
    GhCommand("pr close", pr_close, _PULL, (1, 1), "--comment/-c", "--delete-branch/-d"),
    GhCommand("pr reopen", pr_reopen, _PULL, (1, 1), "--comment/-c"),
)
