"""The commit by which git says what a rollback did."""

from __future__ import annotations

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.promotion.committing import git
from pipelines.promotion.images import replace_file

ATTEMPTS = 5
"""How often the commit is made anew because someone else pushed to main in between."""


def restore_release(project: Project, model: str, environment: str, target: str, bad: str, reason: str) -> str:
    """Commit to main that an environment runs the bundle `target` again; the commit.

    Done again, it finds main saying so and commits nothing. It needs the right to push to main: a rollback does not
    wait for a review.

    Raises:
        MlopsError: git refused.
    """
    path = project.release_file(model, environment)
    name = path.relative_to(project.root).as_posix()
    release = Release(model=model, environment=environment, bundle=target, replaces=bad)
    for attempt in range(ATTEMPTS):
        git(project.root, "fetch", "--quiet", "origin", "main")
        git(project.root, "checkout", "--quiet", "--detach", "origin/main")
        if project.release(model, environment).bundle == target:
            return git(project.root, "rev-parse", "HEAD")
        replace_file(path, render_release(release))
        message = f"Roll {model} in {environment} back\n\n{reason}\n"
        git(project.root, "commit", "--quiet", "--message", message, "--", name)
        try:
            git(project.root, "push", "--quiet", "origin", "HEAD:refs/heads/main")
        except MlopsError:
            if attempt + 1 == ATTEMPTS:
                raise
            continue
        return git(project.root, "rev-parse", "HEAD")
    raise AssertionError("unreachable")
