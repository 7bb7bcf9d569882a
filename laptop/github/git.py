"""Run git without the settings, identity or credentials of whoever started us."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipelines.declarations.errors import MlopsError

NOBODY = "0" * 40
"""What git writes for "no commit": a ref that is created or deleted."""


class GitError(MlopsError):
    """A git command failed."""


def git_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of git: PATH, no configuration but the repository's, no prompts."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    # In a hook, what is being pushed is in quarantine, and only these say where.
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
    """Run `git -C folder …` and return what it prints, without the last line's end.

    Args:
        folder: a repository.
        arguments: the command.
        text: its standard input.
        environ: variables besides those of `git_environ`.

    Raises:
        GitError: git is missing, or ends with an error.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, env=git_environ(environ), check=False
        )
    except OSError as error:
        raise GitError(f"git cannot be started: {error.strerror}", fix="install git 2.38 or newer") from None
    if done.returncode != 0:
        raise GitError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.removesuffix("\n")


def read_file(folder: Path, commit_id: str, path: str) -> bytes | None:
    """A file's content at a commit, or None."""
    command = ["git", "-C", str(folder), "cat-file", "blob", f"{commit_id}:{path}"]
    done = subprocess.run(command, capture_output=True, env=git_environ(), check=False)
    return done.stdout if done.returncode == 0 else None


def extract(folder: Path, commit_id: str, path: str, to: Path) -> None:
    """Write the files that a commit has under `path` below `to`; nothing when there are none."""
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-tree", "-r", "-z", commit_id, "--", path],
        capture_output=True,
        env=git_environ(),
        check=False,
    )
    for entry in filter(None, listed.stdout.split(b"\0")):
        kind, _, name = entry.decode().partition("\t")
        content = read_file(folder, commit_id, name)
        if content is not None and kind.startswith("100"):  # a file: links could lead anywhere
            file = to / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if kind.startswith("100755") else 0o644)


def resolve(folder: Path, revision: str) -> str | None:
    """The commit that `revision` names, or None."""
    try:
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except GitError:
        return None


def changed_files(folder: Path, before: str, after: str) -> tuple[str, ...]:
    """The files that differ between two commits; for a new branch (`before` is `NOBODY`), all of `after`'s."""
    if before == NOBODY:
        names = git(folder, "ls-tree", "-r", "-z", "--name-only", after)
    else:
        names = git(folder, "diff", "--name-only", "-z", "--no-renames", before, after)
    return tuple(name for name in names.split("\0") if name)


def merged_tree(folder: Path, base: str, head: str) -> str | None:
    """The tree of merging `head` into `base`, or None when they conflict."""
    try:
        return git(folder, "merge-tree", "--write-tree", base, head).split("\n", 1)[0]
    except GitError:
        return None


def commit(folder: Path, tree: str, parents: tuple[str, ...], message: str, author: str) -> str:
    """Make a commit object and return its id.

    Args:
        author: the login that it is by.
    """
    email = f"{author}@users.noreply.github.localhost"
    identity = {"GIT_AUTHOR_NAME": author, "GIT_AUTHOR_EMAIL": email}
    identity |= {"GIT_COMMITTER_NAME": "GitHub", "GIT_COMMITTER_EMAIL": "noreply@github.localhost"}
    options = [option for parent in parents for option in ("-p", parent)]
    return git(folder, "commit-tree", tree, *options, "-F", "-", text=message, environ=identity)
