"""Git, where it writes: commits are the product's own, and a push goes by the token that the workflow was given.

Commits are made without touching the working tree, the index or any branch of the clone.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.github.repository import Repository

AUTHOR = ("-c", "user.name=mlops", "-c", "user.email=mlops@users.noreply.github.com", "-c", "commit.gpgsign=false")


def git(root: Path, *arguments: str, given: bytes = b"", index: Path | None = None) -> str:
    """Run git in `root`; what it printed, without the white space around it.

    `GH_TOKEN` authorises it where `GITHUB_SERVER_URL` says, by git's own environment: in argv, or in the clone's
    configuration, others could read it.

    Args:
        root: the clone.
        arguments: the command and its arguments.
        given: its standard input.
        index: an index to use instead of the clone's.

    Raises:
        MlopsError: it failed.
    """
    done = subprocess.run(
        ["git", *AUTHOR, *arguments],
        cwd=root,
        env={**os.environ, **authorization(), **({"GIT_INDEX_FILE": str(index)} if index else {})},
        input=given,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise MlopsError(f"git {' '.join(arguments[:2])}: {reason or f'status {done.returncode}'}")
    return done.stdout.decode(errors="replace").strip()


def authorization() -> dict[str, str]:
    """The variables by which git sends the token; none when there is no token, as on a person's machine."""
    token, server = os.environ.get("GH_TOKEN"), os.environ.get("GITHUB_SERVER_URL")
    if not token or not server:
        return {}
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{server}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"AUTHORIZATION: basic {basic}",
        "GIT_TERMINAL_PROMPT": "0",
    }


def fetch(root: Path, branch: str) -> str | None:
    """The commit that a branch of the origin has now; None when the origin has no such branch.

    Raises:
        MlopsError: the origin does not answer.
    """
    if not git(root, "ls-remote", "origin", f"refs/heads/{branch}"):
        return None
    known = f"refs/remotes/origin/{branch}"
    git(root, "fetch", "--quiet", "--no-tags", "origin", f"+refs/heads/{branch}:{known}")
    return Repository(root).commit(known)


def commit_onto(root: Path, base: str, files: Mapping[str, bytes], message: str) -> str:
    """A commit on top of `base` in which some files say something else; `base` itself if they say that already.

    Args:
        root: the clone.
        base: a commit.
        files: path → content.
        message: the commit's.

    Raises:
        MlopsError: there is no such commit, or git refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        git(root, "read-tree", base, index=index)
        for path, content in files.items():
            blob = git(root, "hash-object", "-w", "--stdin", given=content)
            git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
        tree = git(root, "write-tree", index=index)
    if tree == Repository(root).tree(base):
        return base
    return git(root, "commit-tree", tree, "-p", base, "-F", "-", given=message.encode())


def put_back(root: Path, files: Iterable[str]) -> None:
    """Make files of the working tree what the checked-out commit says; those that it does not have go away.

    Raises:
        MlopsError: git refuses.
    """
    for path in files:
        if Repository(root).has_file("HEAD", path):
            git(root, "checkout", "--quiet", "HEAD", "--", path)
        else:
            git(root, "rm", "--quiet", "--cached", "--ignore-unmatch", "--", path)
            (root / path).unlink(missing_ok=True)
