"""Open, update and comment on pull requests, and find the one that merged a commit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh, text_file
from pipelines.github.git import Git
from pipelines.github.outages import outlast
from pipelines.github.published_commits import publish
from pipelines.github.workflow_run import add_summary

FIELDS = "number,title,headRefName,url,state,isCrossRepository"

REVIEWERS = ("OWNER", "MEMBER", "COLLABORATOR")
"""Associations with a repository whose approvals are recorded. In a public one, everyone on GitHub can approve."""

MOST_OPEN = "1000"
"""How many open pull requests of one branch name to list: forks may have branches of the same name."""


@dataclass(frozen=True)
class PullRequest:
    """A pull request.

    Attributes:
        number: its number.
        title: its title.
        branch: the branch to merge.
        url: its web page.
        state: OPEN, MERGED or CLOSED.
    """

    number: int
    title: str
    branch: str
    url: str
    state: str


@dataclass(frozen=True)
class Merge:
    """The pull request that merged a commit.

    Attributes:
        number: its number.
        author: login of the account that opened it.
        approvers: logins of the members and collaborators whose approval was in force, sorted.
    """

    number: int
    author: str
    approvers: tuple[str, ...]


def find_open(gh: Gh, branch: str) -> PullRequest | None:
    """Return the open pull request of a branch of this repository. Branches of forks with the same name do not count.

    Raises:
        MlopsError: `gh` failed.
    """
    options = ("--head", branch, "--state", "open", "--limit", MOST_OPEN, "--json", FIELDS)
    found = [pull for pull in json.loads(gh.read("pr", "list", *options)) if not pull["isCrossRepository"]]
    if not found:
        return None
    first = found[0]
    return PullRequest(
        int(first["number"]), str(first["title"]), str(first["headRefName"]), str(first["url"]), str(first["state"])
    )


def propose(gh: Gh, branch: str, files: Sequence[Path], message: str, body: str) -> PullRequest:
    """Open a pull request with one commit that changes some files, or update the one that is open for the branch.

    The files of the working tree are reset to HEAD first, so that nothing is left of a proposal that fails.

    Args:
        gh: the repository.
        branch: the branch to push.
        files: the changed files of the working tree; no other file is committed.
        message: the commit message and the pull request's title.
        body: the pull request's text.

    Raises:
        MlopsError: git or `gh` failed.
    """
    git = Git(gh.root)
    contents = {file.relative_to(gh.root).as_posix(): file.read_bytes() for file in files}
    git.restore_files(contents)
    main, before = outlast(lambda: (git.fetch("main"), git.fetch(branch)))
    if main is None:
        raise MlopsError("the origin has no branch main")
    commit = git.commit_files(main, contents, message)
    # A push starts every check again and dismisses approvals, so an unchanged proposal is not pushed.
    if before is None or not _same_change(git, main, before, commit):
        publish(gh.root, main, contents, message, branch, force=True)
    found = find_open(gh, branch)
    if found is None:
        with text_file(body) as file:
            title = ("--title", message, "--body-file", file, "--head", branch, "--base", "main")
            gh.run("pr", "create", *title)
        found = find_open(gh, branch)
    if found is None:
        raise MlopsError(f"the pull request of {branch} was created, but GitHub does not list it as open")
    return found


def take_from_main(gh: Gh, file: Path) -> None:
    """Replace a file of the working tree by that of main, which may have moved since the checkout.

    A proposal that edits one line of a file would otherwise undo what others have changed in it since.

    Raises:
        MlopsError: git failed, or main has no such file.
    """
    git = Git(gh.root)
    main = outlast(lambda: git.fetch("main"))
    if main is None:
        raise MlopsError("the origin has no branch main")
    write_atomically(file, git.read_file(main, file.relative_to(gh.root).as_posix()).decode())


def comment(gh: Gh, number: int, marker: str, body: str) -> None:
    """Comment on a pull request, or edit the comment of a bot that starts with `marker`.

    The summary of the workflow run gets the same text, because no other run can change it. A person's comment is never
    edited, even if it starts with the marker: its author could change it afterwards.

    Args:
        gh: the repository.
        number: the pull request.
        marker: the beginning of the body by which the comment is found again.
        body: the new text, in Markdown.

    Raises:
        MlopsError: `gh` failed.
    """
    add_summary(body)
    for found in gh.list_all(f"issues/{number}/comments"):
        if _is_ours(found, marker):
            with text_file(json.dumps({"body": body})) as file:
                path = f"repos/{gh.repository}/issues/comments/{found['id']}"
                gh.run("api", path, "--method", "PATCH", "--input", file)
            return
    with text_file(body) as file:
        gh.run("pr", "comment", str(number), "--body-file", file)


def find_merge(gh: Gh, commit: str) -> Merge | None:
    """Return the pull request that brought a commit to main, with its approvers; None if there is none.

    Raises:
        MlopsError: `gh` failed.
    """
    pulls = [
        pull
        for pull in gh.list_all(f"commits/{commit}/pulls")
        if pull.get("merged_at") and (pull.get("base") or {}).get("ref", "main") == "main"
    ]
    if not pulls:
        return None
    pull = next((pull for pull in pulls if pull.get("merge_commit_sha") == commit), pulls[0])
    number = int(pull["number"])
    newest: dict[str, str] = {}
    for review in gh.list_all(f"pulls/{number}/reviews"):
        is_known = review.get("author_association") in REVIEWERS
        # A later comment withdraws nothing.
        if is_known and review["state"] in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED"):
            newest[_login(review)] = review["state"]
    approvers = sorted(login for login, state in newest.items() if state == "APPROVED")
    return Merge(number, _login(pull), tuple(approvers))


def _same_change(git: Git, main: str, before: str, after: str) -> bool:
    """Return whether merging either of two commits into main gives the same files.

    True if the earlier commit branched off main, and main has changed none of its files since. A clone that lacks the
    commit where it branched off cannot know.
    """
    base = git.find_merge_base(main, before)
    if base is None or git.parents(before) != [base]:
        return False
    changed = set(git.changed_files(base, before))
    if changed != set(git.changed_files(main, after)) or changed & set(git.changed_files(base, main)):
        return False
    return all(git.read_file(before, path) == git.read_file(after, path) for path in changed)


def _is_ours(comment: Mapping[str, Any], marker: str) -> bool:
    author = comment.get("user") or {}
    return str(comment.get("body")).startswith(marker) and author.get("type") == "Bot"


def _login(item: Mapping[str, Any]) -> str:
    """Return the author's login; GitHub shows deleted accounts as `ghost`."""
    return str((item.get("user") or {}).get("login") or "ghost")
