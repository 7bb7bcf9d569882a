from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.promotion.restore import restore_release
from tests.pipelines.promotion.world import MODEL, RELEASE, commit_all, git, make_repository

OLD, BAD, GOOD = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_repository(tmp_path / "git")


def write_release(project: Project, bundle: str, replaces: str | None = None) -> Path:
    path = project.root / RELEASE
    replaces = BAD if bundle else None
    path.write_text(render_release(Release(model=MODEL, environment="staging", bundle=bundle, replaces=replaces)))
    (project.root / "README.md").write_text("another")
    commit_all(project.root, "another")
    released = git(project.root, "show", f"{restore(project)}:{RELEASE}")
    assert released == render_release(Release(model=MODEL, environment="staging", bundle=GOOD, replaces=BAD)).strip()


def test_a_release_file_on_main_that_cannot_be_read_is_replaced(project: Project) -> None:
    (project.root / RELEASE).write_text("nonsense")
    commit_all(project.root, "broken")
    commit = restore(project)
    assert GOOD in git(project.root, "show", f"{commit}:{RELEASE}")
