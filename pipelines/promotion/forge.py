"""GitHub, through its command line `gh`: pull requests and their comments. Nothing else of the product calls it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.promotion.committing import git

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
        """The repository that a workflow runs for (`GITHUB_REPOSITORY`), or that `gh` finds.

        Raises:
            MlopsError: neither names one.
        """
        named = os.environ.get("GITHUB_REPOSITORY")
        if not named:
            raise MlopsError(
                "it is not known which GitHub repository this belongs to", fix="set GITHUB_REPOSITORY=owner/name"
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

        Args:
            branch: its name.
            files: the changed files; nothing else is committed.
            message: the commit's, and the pull request's title.
            body: the pull request's text.

        Raises:
            MlopsError: git or `gh` failed.
        """
        names = [str(file.relative_to(self.root)) for file in files]
        back = git(self.root, "rev-parse", "HEAD")
        try:
            git(self.root, "checkout", "--quiet", "-B", branch)
            git(self.root, "add", "--", *names)
            if git(self.root, "status", "--porcelain", "--", *names):
                git(self.root, "commit", "--quiet", "--message", message, "--", *names)
            git(self.root, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        finally:
            git(self.root, "checkout", "--quiet", "--detach", back)
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
        """Write a comment on a pull request, or edit the one that holds `marker`.

        Raises:
            MlopsError: `gh` failed.
        """
        path = f"repos/{self.repository}/issues/{number}/comments"
        for found in json.loads(self.gh("api", path, "--paginate")):
            if marker in found["body"]:
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
        pulls = json.loads(self.gh("api", f"repos/{self.repository}/commits/{commit}/pulls"))
        merged = [pull for pull in pulls if pull.get("merged_at")]
        if not merged:
            return None
        number = int(merged[0]["number"])
        reviews = json.loads(self.gh("api", f"repos/{self.repository}/pulls/{number}/reviews"))
        newest = {review["user"]["login"]: review["state"] for review in reviews}
        approvers = sorted(login for login, state in newest.items() if state == "APPROVED")
        return Merge(number, str(merged[0]["user"]["login"]), tuple(approvers))

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
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self._text)
        return name

    def __exit__(self, *_: Any) -> None:
        self._path.unlink(missing_ok=True)


def _pull_request(value: dict[str, Any]) -> PullRequest:
    return PullRequest(
        int(value["number"]), str(value["title"]), str(value["headRefName"]), str(value["url"]), str(value["state"])
    )
