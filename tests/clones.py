"""Git clones with a bare origin, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines.declarations.project import Project
from tests.sample_project import copy_as_forked


def git(folder: Path, *arguments: str) -> str:
    """Run git as a test user and return what it printed, stripped."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_clone(folder: Path) -> Path:
    """Create `folder/clone` with one commit, and its origin `folder/origin.git`; return the clone."""
    root = folder / "clone"
    root.mkdir()
    (root / "README.md").write_text("hello\n")
    connect(root, folder / "origin.git")
    return root


def make_repository(folder: Path) -> Project:
    """Create `folder/clone` with the sample project on main, and its origin `folder/origin.git`."""
    root = copy_as_forked(folder / "clone", "requirements/serving.txt")
    connect(root, folder / "origin.git")
    return Project(root)


def commit_all(root: Path, message: str) -> str:
    """Commit everything, push it to main, and return the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", message)
    git(root, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    git(root, "fetch", "--quiet", "origin")
    return git(root, "rev-parse", "HEAD")


def connect(root: Path, origin: Path) -> None:
    """Make a folder a clone with one commit on main, and create its origin."""
    git(root.parent, "init", "--quiet", "--bare", "--initial-branch=main", origin.name)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "remote", "add", "origin", str(origin))
    commit_all(root, "start")
