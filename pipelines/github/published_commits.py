"""Commit files and move a branch of the origin: signed by GitHub where a workflow does it as an app."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.outages import outlast

APP_TOKEN = "ghs_"  # noqa: S105 - no token
"""Beginning of the tokens of apps and of jobs (GitHub, "About authentication to GitHub": token formats)."""


def acts_as_app() -> bool:
    """Return whether requests are made as an app. GitHub signs the commits that an app creates through its API."""
    return os.environ.get("GH_TOKEN", "").startswith(APP_TOKEN)


def publish(
    root: Path, base: str, files: Mapping[str, bytes], message: str, branch: str, *, force: bool = False
) -> str:
    """Commit files on top of a commit of the origin, move a branch there, and return the commit.

    An app commits through GitHub's API, so that the commit is signed and passes rules which require that. A person
    commits and pushes with git. The working tree is unchanged.

    Args:
        root: the clone.
        base: the parent, a commit that the origin has.
        files: path → new content.
        message: the commit message.
        branch: the branch to create or move.
        force: move the branch even if that drops commits from it.

    Raises:
        MlopsError: the branch has moved, a rule forbids it, or a file is not text.
    """
    git = Git(root)
    commit = git.commit_files(base, files, message)
    if commit == base or not acts_as_app():
        outlast(lambda: git.push(commit, branch, force=force))
        return commit
    gh = Gh.find(root)
    path = f"repos/{gh.repository}/git"
    # Every file that we propose is a small text, so its content goes into the tree and needs no blob first.
    entries = [
        {"path": name, "mode": "100644", "type": "blob", "content": _text(name, content)}
        for name, content in files.items()
    ]
    changes = {"base_tree": git.tree(base), "tree": entries}
    tree = outlast(lambda: gh.request("POST", f"{path}/trees", changes))["sha"]
    if tree != git.tree(commit):
        raise MlopsError(f"the tree that GitHub made of {', '.join(files)}: expected {git.tree(commit)}, found {tree}")
    # No author or committer: GitHub signs only commits of the app itself.
    description = {"message": message, "tree": tree, "parents": [base]}
    made = outlast(lambda: gh.request("POST", f"{path}/commits", description))["sha"]

    def move_branch() -> None:
        before = git.fetch(branch)
        if before is None:
            gh.request("POST", f"{path}/refs", {"ref": f"refs/heads/{branch}", "sha": made})
        elif before != made:  # perhaps the answer to the first attempt was lost
            gh.request("PATCH", f"{path}/refs/heads/{branch}", {"sha": made, "force": force})

    outlast(move_branch)
    return str(made)


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise MlopsError(f"{name}: expected UTF-8 text, found other bytes") from None
