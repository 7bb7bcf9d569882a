"""Call GitHub through its command line `gh`. Only this module runs `gh`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.github.outages import AFTER_AN_OUTAGE, OutageError, is_outage, outlast, status_in

_FIXES = {
    401: "check that the app is installed and its key valid (docs/repository-settings.md), then run the job again",
}
"""Status → what to do."""


class GitHubError(MlopsError):
    """GitHub refused a request.

    Attributes:
        status: the HTTP status; None if `gh` failed before it had an answer.
    """

    def __init__(self, what: str, status: int | None = None, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.status = status


class GitHubOutageError(GitHubError, OutageError):
    """GitHub did not answer a request, or is unavailable."""


@dataclass(frozen=True)
class Gh:
    """A repository on GitHub.

    Attributes:
        root: a clone of the repository, in which `gh` runs.
        repository: `owner/name`.
        token: token to use instead of the one in the environment; "" for that.
    """

    root: Path
    repository: str
    token: str = field(default="", repr=False)

    @classmethod
    def find(cls, root: Path) -> Gh:
        """Return the repository of a clone.

        It is `GITHUB_REPOSITORY`, which workflows have; else `GH_REPO`, which `gh` itself obeys; else what `origin`
        points to.

        Raises:
            MlopsError: neither variable is set, and `origin` is not on github.com.
        """
        chosen = "/".join(os.environ.get("GH_REPO", "").split("/")[-2:])  # without the host, which it may have
        name = os.environ.get("GITHUB_REPOSITORY") or chosen or _name_in(Git(root).origin_url())
        if not name:
            raise MlopsError(
                f"cannot find the GitHub repository of {root}: expected GITHUB_REPOSITORY, GH_REPO, or an origin on "
                "github.com; found none of them",
                fix="set GITHUB_REPOSITORY=owner/name, or point origin to the repository",
            )
        return cls(root, name)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run `gh` and return its standard output.

        Args:
            arguments: of `gh`. Other processes can read them, so no secret may be among them.
            stdin: its standard input.

        Raises:
            GitHubOutageError: GitHub does not answer.
            GitHubError: `gh` failed.
            MlopsError: `gh` is not installed.
        """
        try:
            done = subprocess.run(
                ["gh", *arguments],
                cwd=self.root,
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "GH_TOKEN": self.token} if self.token else None,
            )
        except FileNotFoundError:
            raise MlopsError("the GitHub CLI `gh` is not on the PATH", fix="install gh") from None
        if done.returncode:
            reason = done.stderr.strip() or done.stdout.strip()
            what, status = f"gh {' '.join(arguments[:3])}: {reason}", status_in(reason)
            if is_outage(reason):
                raise GitHubOutageError(what, status, fix=AFTER_AN_OUTAGE)
            raise GitHubError(what, status, fix=_FIXES.get(status or 0, ""))
        return done.stdout

    def read(self, *arguments: str) -> str:
        """Run a command of `gh` that changes nothing, and return its standard output. Outlasts a short outage.

        Raises:
            MlopsError: `gh` failed.
        """
        return outlast(lambda: self.run(*arguments))

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request to the API and return its parsed answer; None if it is empty.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: the whole path, `repos/owner/name/…`.
            body: the JSON body. It is passed by standard input, so it may hold a secret.

        Raises:
            GitHubError: GitHub refused.
        """
        arguments = ["api", path, "--method", method]
        if method == "GET" and body is None:
            text = self.read(*arguments)
        else:
            text = (
                self.run(*arguments) if body is None else self.run(*arguments, "--input", "-", stdin=json.dumps(body))
            )
        return json.loads(text) if text.strip() else None

    def get(self, path: str) -> Any:
        """Return the API's parsed response for a path of this repository.

        Raises:
            MlopsError: `gh` failed.
        """
        return json.loads(self.read("api", f"repos/{self.repository}/{path}"))

    def list_all(self, path: str) -> list[dict[str, Any]]:
        """Return all items that the API lists for a path of this repository, across all pages.

        Raises:
            MlopsError: `gh` failed.
        """
        listing = f"repos/{self.repository}/{path}?per_page=100"
        text = self.read("api", listing, "--paginate").strip()
        items: list[dict[str, Any]] = []
        position = 0
        while position < len(text):
            # Some versions of gh print one list a page, others join them.
            page, position = json.JSONDecoder().raw_decode(text, position)
            items += page
            position += len(text[position:]) - len(text[position:].lstrip())
        return items

    def dispatch(self, workflow: str, inputs: Mapping[str, str]) -> None:
        """Start a workflow on main.

        Raises:
            MlopsError: `gh` failed.
        """
        fields = [part for name, value in inputs.items() for part in ("-f", f"{name}={value}")]
        self.run("workflow", "run", workflow, "--ref", "main", *fields)


@contextmanager
def text_file(text: str) -> Iterator[str]:
    """Write a text to a temporary file and yield its path: other processes could read a text in argv."""
    handle, name = tempfile.mkstemp(suffix=".md")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def _name_in(url: str) -> str:
    """Return the `owner/name` in a URL of github.com, or ""."""
    found = re.search(r"(?:^|[@/])github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", url)
    return found[1] if found else ""
