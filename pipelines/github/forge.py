"""GitHub, through its command line `gh`: pull requests and their comments. Nothing else of the product calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.github.committing import commit_onto, fetch, git, put_back
from pipelines.github.repository import Repository

FIELDS = "number,title,headRefName,url,state"


@dataclass(frozen=True)
class PullRequest:
    """A pull request.

    Attributes:
        number: of it.
        title, url: of it.
        branch: that it would merge.
        state: OPEN, MERGED or CLOSED.
    """

    number: int
    title: str
    branch: str
    url: str
    state: str


@dataclass(frozen=True)
class Merge:
    """Who let a commit onto main.

    Attributes:
        number: of the pull request.
        author: who opened it.
        approvers: who approved it.
    """

    number: int
    author: str
    approvers: tuple[str, ...]


@dataclass(frozen=True)
class Forge:
    """The repository on GitHub that a clone belongs to.

    Attributes:
        root: the clone.
        repository: `owner/name`.
    """

    root: Path
    repository: str

    @classmethod
    def of(cls, root: Path) -> Forge:
        """The repository that a workflow runs for (`GITHUB_REPOSITORY`), or that `origin` names.

        Raises:
            MlopsError: neither does.
        """
        named = os.environ.get("GITHUB_REPOSITORY") or _origin(root)
        if not named:
            raise MlopsError(
                "it is not known which GitHub repository this belongs to",
                fix="set GITHUB_REPOSITORY=owner/name, or let origin be on GitHub",
            )
        return cls(root, named)

    def gh(self, *arguments: str) -> str:
        """Run `gh`; what it printed.

        Raises:
            MlopsError: it is not there, or it failed.
        """
        try:
            done = subprocess.run(["gh", *arguments], cwd=self.root, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise MlopsError("the GitHub CLI `gh` is not on the PATH", fix="install it") from None
        if done.returncode:
            raise MlopsError(f"gh {' '.join(arguments[:3])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def open_pull_request(self, branch: str) -> PullRequest | None:
        """The open pull request of a branch."""
        listed = json.loads(self.gh("pr", "list", "--head", branch, "--state", "open", "--json", FIELDS))
        return _pull_request(listed[0]) if listed else None

    def propose(self, branch: str, files: Sequence[Path], message: str, body: str) -> PullRequest:
        """Propose changed files as one commit on top of main; a pull request of the branch that is open is renewed.

        The files are left as the checked-out commit has them: the change is in the pull request.

        Args:
            branch: its name.
            files: the changed files; nothing else is committed.
            message: the commit's, and the pull request's title.
            body: the pull request's text.

        Raises:
            MlopsError: git or `gh` failed.
        """
        contents = {file.relative_to(self.root).as_posix(): file.read_bytes() for file in files}
        main, before = fetch(self.root, "main"), fetch(self.root, branch)
        if main is None:
            raise MlopsError("the origin has no branch main")
        commit = commit_onto(self.root, main, contents, message)
        # The same change on the same main is not pushed again: that would run every check once more for nothing.
        if before is None or not _same(Repository(self.root), before, commit):
            git(self.root, "push", "--quiet", "--force", "origin", f"{commit}:refs/heads/{branch}")
        put_back(self.root, contents)
        found = self.open_pull_request(branch)
        if found is None:
            with self._text(body) as file:
                title = ("--title", message, "--body-file", file, "--head", branch, "--base", "main")
                self.gh("pr", "create", *title)
            found = self.open_pull_request(branch)
        if found is None:
            raise MlopsError(f"no pull request of {branch} is open, though it was just created")
        return found

    def comment(self, number: int, marker: str, body: str) -> None:
        """Write a comment on a pull request, or edit the one that was written by a program and begins with `marker`.

        A person's comment is never edited, whatever it begins with: its author could change it afterwards.

        Raises:
            MlopsError: `gh` failed.
        """
        path = f"repos/{self.repository}/issues/{number}/comments"
        for found in self._listed(path):
            if _is_ours(found, marker):
                with self._text(json.dumps({"body": body})) as file:
                    edited = f"repos/{self.repository}/issues/comments/{found['id']}"
                    self.gh("api", edited, "--method", "PATCH", "--input", file)
                return
        with self._text(body) as file:
            self.gh("pr", "comment", str(number), "--body-file", file)

    def dispatch(self, workflow: str, inputs: Mapping[str, str]) -> None:
        """Ask for a run of a workflow on main.

        Raises:
            MlopsError: `gh` failed.
        """
        fields = [part for name, value in inputs.items() for part in ("-f", f"{name}={value}")]
        self.gh("workflow", "run", workflow, "--ref", "main", *fields)

    def merge_of(self, commit: str) -> Merge | None:
        """The pull request that brought a commit to main, and who approved it; None when none did.

        Raises:
            MlopsError: `gh` failed.
        """
        pulls = [
            pull
            for pull in self._listed(f"repos/{self.repository}/commits/{commit}/pulls")
            if pull.get("merged_at") and (pull.get("base") or {}).get("ref", "main") == "main"
        ]
        if not pulls:
            return None
        pull = next((pull for pull in pulls if pull.get("merge_commit_sha") == commit), pulls[0])
        number = int(pull["number"])
        newest: dict[str, str] = {}
        for review in self._listed(f"repos/{self.repository}/pulls/{number}/reviews"):
            if review["state"] in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED"):  # a comment takes nothing back
                newest[_login(review)] = review["state"]
        approvers = sorted(login for login, state in newest.items() if state == "APPROVED")
        return Merge(number, _login(pull), tuple(approvers))

    def _listed(self, path: str) -> list[dict[str, Any]]:
        """Everything that a path of the API lists, from all of its pages."""
        text, place = self.gh("api", f"{path}?per_page=100", "--paginate").strip(), 0
        found: list[dict[str, Any]] = []
        while place < len(text):
            # Versions of gh differ in whether they join the pages' lists.
            page, place = json.JSONDecoder().raw_decode(text, place)
            found += page
            place += len(text[place:]) - len(text[place:].lstrip())
        return found

    def _text(self, text: str) -> _TextFile:
        return _TextFile(text)


class _TextFile:
    """A text in a file that is gone when the block ends: long texts do not go through argv."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._path = Path()

    def __enter__(self) -> str:
        handle, name = tempfile.mkstemp(suffix=".md")
        self._path = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(self._text.encode())
        return name

    def __exit__(self, *_: Any) -> None:
        self._path.unlink(missing_ok=True)


def _pull_request(value: dict[str, Any]) -> PullRequest:
    return PullRequest(
        int(value["number"]), str(value["title"]), str(value["headRefName"]), str(value["url"]), str(value["state"])
    )


def _same(repository: Repository, one: str, other: str) -> bool:
    """Whether two commits make the same of the same."""
    return (repository.tree(one), repository.parents(one)) == (repository.tree(other), repository.parents(other))


def _is_ours(comment: Mapping[str, Any], marker: str) -> bool:
    author = comment.get("user") or {}
    return str(comment.get("body")).startswith(marker) and author.get("type") == "Bot"


def _login(item: Mapping[str, Any]) -> str:
    """Who did it; the accounts that were deleted are all GitHub's `ghost`."""
    return str((item.get("user") or {}).get("login") or "ghost")


def _origin(root: Path) -> str:
    """`owner/name` of the remote `origin` when it is on GitHub, otherwise ""."""
    command = ["git", "config", "--get", "remote.origin.url"]
    url = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    found = re.search(r"(?:^|[@/])github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", url)
    return found[1] if found else ""
