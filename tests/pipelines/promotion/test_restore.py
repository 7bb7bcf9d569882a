from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.restore import restore_release
from tests.clones import commit_all, git, make_repository
from tests.pipelines.promotion.promotion_project import MODEL, RELEASE, write_release

OLD, BAD, GOOD = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_repository(tmp_path / "git")


def restore(project: Project) -> str:
    return restore_release(project, MODEL, "staging", GOOD, BAD, "too slow:\n\x1b[31mvery [skip ci] fixes #5 @ada")


def test_a_rollback_is_one_commit_on_main_that_names_both_bundles(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    (project.root / RELEASE).write_text("work in progress")
    commit = restore(project)
    git(project.root, "fetch", "--quiet", "origin")
    assert git(project.root, "rev-parse", "origin/main") == commit
    release = git(project.root, "show", f"{commit}:{RELEASE}")
    assert f"bundle: {GOOD}\nreplaces: {BAD}" in release
    assert git(project.root, "log", "-1", "--format=%s%n%b", commit) == (
        f"Roll {MODEL} in staging back\nReason: too slow: �[\u200b31mvery [\u200bskip ci] fixes #\u200b5 @\u200bada"
    ), "nothing in it is a command for GitHub"
    assert (project.root / RELEASE).read_text() == "work in progress", "the working tree is unchanged"


def test_a_rollback_is_committed_once(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    commit = restore(project)
    assert restore(project) == commit
    assert git(project.root, "rev-list", "--count", "origin/main") == "3"


def test_nothing_is_committed_if_main_names_the_bundle_already(project: Project) -> None:
    write_release(project, GOOD, OLD)
    commit = commit_all(project.root, "restored by hand")
    assert restore(project) == commit == git(project.root.parent / "origin.git", "rev-parse", "main")


def test_a_rollback_keeps_commits_pushed_during_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(project.root.parent / "origin.git"), "other")
    pushes: list[str] = []
    plain = Git.push

    def race(clone: Git, commit: str, branch: str, *, force: bool) -> None:
        assert not force
        if len(pushes) < 2:
            pushes.append(commit)
            (other / f"more-{len(pushes)}").write_text("x")
            commit_all(other, "pushed in between")
        plain(clone, commit, branch, force=force)

    monkeypatch.setattr(Git, "push", race)
    commit = restore(project)
    listed = git(project.root, "ls-tree", "-r", "--name-only", commit)
    assert len(pushes) == 2 and "more-1" in listed and "more-2" in listed
    assert git(project.root.parent / "origin.git", "rev-parse", "main") == commit


def test_a_refused_push_is_an_error(project: Project) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    hook = project.root.parent / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'protected branch' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(MlopsError, match="protected branch"):
        restore(project)
    git(project.root.parent / "origin.git", "update-ref", "-d", "refs/heads/main")
    with pytest.raises(MlopsError) as caught:
        restore(project)
    assert caught.value.what == "the origin has no branch main"


@pytest.mark.parametrize("refused", [4, 5])
def test_the_push_is_tried_at_most_five_times(project: Project, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    write_release(project, BAD, GOOD)
    commit_all(project.root, "bad")
    plain, pushes = Git.push, []

    def race(clone: Git, commit: str, branch: str, *, force: bool) -> None:
        assert not force
        pushes.append(commit)
        if len(pushes) <= refused:
            raise MlopsError("pushed in between")
        plain(clone, commit, branch, force=force)

    monkeypatch.setattr(Git, "push", race)
    if refused < 5:
        assert restore(project) == git(project.root.parent / "origin.git", "rev-parse", "main")
    else:
        with pytest.raises(MlopsError, match="pushed in between"):
            restore(project)
    assert len(pushes) == 5


@pytest.mark.parametrize(("bundle", "replaces"), [(None, None), (OLD, BAD)])
def test_a_release_of_another_bundle_or_of_none_is_replaced(
    project: Project, bundle: str | None, replaces: str | None
) -> None:
    path = project.root / RELEASE
    path.write_text(render_release(Release(model=MODEL, environment="staging", bundle=bundle, replaces=replaces)))
    (project.root / "README.md").write_text("another")
    commit_all(project.root, "another")
    released = git(project.root, "show", f"{restore(project)}:{RELEASE}")
    expected = Release(model=MODEL, environment="staging", bundle=GOOD, replaces=BAD)
    assert released == render_release(expected).strip()


def test_an_unreadable_release_file_is_replaced(project: Project) -> None:
    (project.root / RELEASE).write_text("nonsense")
    commit_all(project.root, "broken")
    commit = restore(project)
    assert GOOD in git(project.root, "show", f"{commit}:{RELEASE}")
