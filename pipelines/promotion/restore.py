"""Commit the release file that a rollback restores."""

from __future__ import annotations

from pathlib import Path

from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.github.outages import OutageError, outlast
from pipelines.github.published_commits import publish
from pipelines.registry.ledger import words

ATTEMPTS = 5
"""Maximum number of attempts to push, if someone else pushes to main first."""


def restore_release(project: Project, model: str, environment: str, target: str, bad: str, reason: str) -> str:
    """Commit to main the release file that returns an environment to an earlier bundle.

    Idempotent: if main names the bundle already, nothing is committed. The caller needs permission to push to main,
    because a rollback does not wait for a review. The working tree is unchanged.

    Args:
        project: the clone.
        model, environment: the release to restore.
        target: digest of the earlier bundle.
        bad: digest of the bundle that it replaces.
        reason: the body of the commit message.

    Returns:
        The commit on main that names the bundle.

    Raises:
        OutageError: the origin does not answer, for longer than a short outage.
        MlopsError: git refused.
    """
    name = project.release_file(model, environment).relative_to(project.root).as_posix()
    release = Release(model=model, environment=environment, bundle=target, replaces=bad)
    message = f"Roll {model} in {environment} back\n\nReason: {inert(reason)}\n"
    git = Git(project.root)
    for attempt in range(ATTEMPTS):
        main = outlast(lambda: git.fetch("main"))
        if main is None:
            raise MlopsError("the origin has no branch main")
        if _named(git, main, name) == target:
            return main
        try:
            commit = publish(project.root, main, {name: render_release(release).encode()}, message, "main")
        except OutageError:
            raise
        except MlopsError:
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        return commit
    raise AssertionError("unreachable")


def inert(reason: str) -> str:
    """Return a reason for a commit message, in which GitHub finds no command.

    A monitor writes reasons. `[skip ci]` would start no deployment of the commit, `fixes #5` would close an issue, and
    `@name` would notify someone. After `Reason: `, `skip-checks: true` is not a trailer.
    """
    shown = words(reason)
    for mark in "[#@":
        shown = shown.replace(mark, f"{mark}\u200b")
    return shown


def released_on_main(project: Project, model: str, environment: str) -> str | None:
    """Return the bundle that the release file on the origin's main names; None if it names none.

    Raises:
        OutageError: the origin does not answer now. This does not wait for it.
        MlopsError: the origin refuses.
    """
    git = Git(project.root)
    main = git.fetch("main")
    path = project.release_file(model, environment).relative_to(project.root).as_posix()
    return _named(git, main, path) if main is not None else None


def _named(git: Git, commit: str, path: str) -> str | None:
    """Return the bundle that a release file names at a commit; None if it names none or cannot be read."""
    try:
        return parse(git.read_file(commit, path), Release, Path(path)).bundle
    except MlopsError:
        return None
