"""The commit by which git says what a rollback did."""

from __future__ import annotations

from pathlib import Path

from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.registry.ledger import words

ATTEMPTS = 5
"""How often the commit is made anew because someone else pushed to main in between."""


def restore_release(project: Project, model: str, environment: str, target: str, bad: str, reason: str) -> str:
    """Commit to main that an environment runs the bundle `target` again; the commit.

    Done again, it finds main saying so and commits nothing. It needs the right to push to main: a rollback does not
    wait for a review. The working tree is left as it is.

    Raises:
        MlopsError: git refused.
    """
    name = project.release_file(model, environment).relative_to(project.root).as_posix()
    release = Release(model=model, environment=environment, bundle=target, replaces=bad)
    message = f"Roll {model} in {environment} back\n\n{words(reason)}\n"
    git = Git(project.root)
    for attempt in range(ATTEMPTS):
        main = git.fetch("main")
        if main is None:
            raise MlopsError("the origin has no branch main")
        if _named(git, main, name) == target:
            return main
        commit = git.commit_files(main, {name: render_release(release).encode()}, message)
        try:
            git.push(commit, "main")
        except MlopsError:
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        return commit
    raise AssertionError("unreachable")


def _named(git: Git, commit: str, path: str) -> str | None:
    """The bundle that a release file names in a commit; None when it names none, or cannot be read."""
    try:
        return parse(git.read_file(commit, path), Release, Path(path)).bundle
    except MlopsError:
        return None
