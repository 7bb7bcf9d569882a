"""The bare git repository behind the laptop's GitHub.

`pipelines.github.git.Git` is for clones of a user: it passes the user's environment on, and imports pydantic. Git waits
for the programs here (hooks, transport), and they must not depend on the user's configuration.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError

NO_COMMIT = "0" * 40
"""Commit id that git writes for a ref that does not exist."""


class GitError(MlopsError):
    """A git command failed."""


def git_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for git without the user's configuration, identity or credentials, and without prompts."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    # In a hook, pushed objects are in quarantine, and only these variables say where.
    kept |= {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("GIT_QUARANTINE", "GIT_OBJECT", "GIT_ALT"))
    }
    return {
        **kept,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        **(extra or {}),
    }


def git(folder: Path, *arguments: str, text: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Run `git -C folder …` and return its standard output without the final newline.

    Args:
        folder: a repository, or a folder inside one.
        arguments: the command and its arguments.
        text: standard input.
        environ: variables added to those of `git_environ`.

    Raises:
        GitError: git is not installed, or the command failed.
    """
    done = _start(folder, arguments, b"" if text is None else text.encode(errors="surrogateescape"), environ)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise GitError(f"git {arguments[0]} failed in {folder}: {reason}")
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n")


def _start(
    folder: Path, arguments: Sequence[str], stdin: bytes, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, input=stdin, capture_output=True, env=git_environ(environ), check=False)
    except OSError as error:
        raise GitError(f"git does not start: {error.strerror}", fix="install git 2.38 or newer") from None


@dataclass(frozen=True)
class BareRepository:
    """A bare repository.

    Attributes:
        path: its folder.
    """

    path: Path

    def run(self, *arguments: str, text: str | None = None, environ: Mapping[str, str] | None = None) -> str:
        """Run a git command in the repository; see `git`."""
        return git(self.path, *arguments, text=text, environ=environ)

    # --- reading ---

    def resolve(self, *revisions: str) -> str | None:
        """Return the commit that the first known revision names, or None."""
        names = "".join(f"{revision}^{{commit}}\n" for revision in revisions if "\n" not in revision)
        for line in self.run("cat-file", "--batch-check", text=names).splitlines():
            commit, _, rest = line.partition(" ")
            if rest.startswith("commit "):
                return commit
        return None

    def resolve_ref(self, name: str) -> str | None:
        """Return the commit of a branch, a tag, a full ref or a commit id; the first that exists, in this order."""
        return self.resolve(f"refs/heads/{name}", f"refs/tags/{name}", name)

    def read_file(self, commit_id: str, path: str) -> bytes | None:
        """Return a file's content at a commit, or None if there is no such file."""
        return self.read_files(commit_id, [path]).get(path)

    def read_files(self, commit_id: str, paths: Sequence[str]) -> dict[str, bytes]:
        """Return path → content of the files that a commit has; other paths are left out."""
        names = [path for path in paths if "\n" not in path]
        request = "".join(f"{commit_id}:{path}\n" for path in names).encode(errors="surrogateescape")
        answer = _start(self.path, ("cat-file", "--batch"), request).stdout
        files: dict[str, bytes] = {}
        position = 0
        for path in names:
            end = answer.index(b"\n", position)
            head, position = answer[position:end].split(b" "), end + 1
            if len(head) == 3 and head[1] in (b"blob", b"tree", b"commit", b"tag") and head[2].isdigit():
                size = int(head[2])
                if head[1] == b"blob":
                    files[path] = answer[position : position + size]
                position += size + 1
        return files

    def list_files(self, commit_id: str, folder: str = "") -> tuple[str, ...]:
        """Return the paths of a commit's files: all of them, or those directly in `folder` (`.github/workflows/`)."""
        arguments = [commit_id, folder] if folder else ["-r", commit_id]
        return _split(self.run("ls-tree", "--name-only", "-z", *arguments))

    def changed_files(self, before: str, after: str) -> tuple[str, ...]:
        """Return the paths that differ between two commits; all paths of `after` if `before` is `NO_COMMIT`."""
        if before == NO_COMMIT:
            return self.list_files(after)
        return _split(self.run("diff", "--name-only", "-z", "--no-renames", before, after))

    def changes_since_fork(self, base: str, head: str) -> list[tuple[str, str]]:
        """Return the paths that `head` changes since it left `base`, each with `added`, `modified` or `removed`."""
        listed = _split(self.run("diff", "--name-status", "-z", "--no-renames", f"{base}...{head}"))
        words = {"A": "added", "D": "removed"}
        return [(path, words.get(letter, "modified")) for letter, path in zip(listed[::2], listed[1::2], strict=True)]

    def contains(self, commit_id: str, older: str) -> bool:
        """Return whether `older` is `commit_id` or one of its ancestors."""
        return _start(self.path, ("merge-base", "--is-ancestor", older, commit_id), b"").returncode == 0

    def commit_payload(self, commit_id: str) -> dict[str, Any]:
        """Return a commit in the form of GitHub's webhook payloads."""
        shown = self.run("log", "-1", "--format=%an%n%ae%n%aI%n%B", commit_id)
        author, email, when, message = shown.split("\n", 3)
        return {
            "id": commit_id,
            "message": message.strip(),
            "timestamp": when,
            "author": {"name": author, "email": email},
        }

    def squash_message(self, base: str, head: str) -> str:
        """Return the body of a squash commit: the subjects of its commits, or the body of a single commit."""
        subjects = self.run("log", "--reverse", "--format=* %s", f"{base}..{head}")
        return subjects if "\n" in subjects else self.run("log", "-1", "--format=%b", head).strip()

    # --- writing ---

    def merge_tree(self, base: str, head: str) -> str | None:
        """Return the tree of merging `head` into `base`, or None if they conflict."""
        try:
            return self.run("merge-tree", "--write-tree", base, head).split("\n", 1)[0]
        except GitError:
            return None

    def commit(self, tree: str, parents: Sequence[str], message: str, author: str) -> str:
        """Create a commit object and return its id.

        Args:
            tree: the tree's id.
            parents: the parents' ids.
            message: the whole message.
            author: the author's login.
        """
        identity = {"GIT_AUTHOR_NAME": author, "GIT_AUTHOR_EMAIL": noreply_address(author)}
        identity |= {"GIT_COMMITTER_NAME": "GitHub", "GIT_COMMITTER_EMAIL": "noreply@github.localhost"}
        options = [option for parent in parents for option in ("-p", parent)]
        return self.run("commit-tree", tree, *options, "-F", "-", text=message, environ=identity)

    def move_ref(self, ref: str, to: str, *, from_: str = "") -> None:
        """Create or move a ref.

        Args:
            ref: the full ref.
            to: the commit.
            from_: the commit that it must be at; any if empty.

        Raises:
            GitError: the ref is at another commit.
        """
        self.run("update-ref", ref, to, *([from_] if from_ else []))


def noreply_address(login: str) -> str:
    """Return the email address that GitHub gives to a login."""
    return f"{login}@users.noreply.github.localhost"


def _split(listed: str) -> tuple[str, ...]:
    return tuple(name for name in listed.split("\0") if name)
