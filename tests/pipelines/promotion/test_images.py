from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import build_context, pin_images
from tests.sample_project import PROJECT

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with two Dockerfiles and a few files."""
    for path in PROJECT.glob("Pulumi*.yaml"):
        shutil.copy(path, tmp_path)
    write(tmp_path, "a.py", "code/one.py", "code/deep/two.py", "code/deep/__pycache__/two.pyc", "data/rows.csv")
    for name in ("training", "serving"):
        write(tmp_path, f"pipelines/{name}/Dockerfile")
    return Project(tmp_path)


def recipe(project: Project, *lines: str, ignored: str | None = None) -> None:
    (project.root / "pipelines/training/Dockerfile").write_text("\n".join(lines) + "\n")
    if ignored is not None:
        (project.root / ".dockerignore").write_text(ignored)


def built(project: Project) -> list[str]:
    """Return the files in the build context of the training image, without the Dockerfile."""
    context = build_context(project, "training")
    assert (context.name, context.dockerfile) == ("training", project.root / "pipelines/training/Dockerfile")
    assert list(context.files) == sorted(context.files) and context.dockerfile in context.files
    return [p.relative_to(project.root).as_posix() for p in context.files if p != context.dockerfile]


# --- what goes into an image ------------------------------------------------------------------------------------------


def test_a_build_context_is_what_the_dockerfile_copies(project: Project) -> None:
    recipe(
        project,
        "# COPY data data",
        "FROM python AS build",
        "",
        "RUN COPY data data",
        "COPY --from=build /opt /opt",
        "COPY a.py code/one.py /app/",
        "COPY code/deep /app/code/deep",
    )
    assert built(project) == ["a.py", "code/deep/__pycache__/two.pyc", "code/deep/two.py", "code/one.py"]


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        ("", ["code/deep/__pycache__/two.pyc", "code/deep/two.py", "code/one.py"]),
        ("# code\n\n  \n", ["code/deep/__pycache__/two.pyc", "code/deep/two.py", "code/one.py"]),
        ("**/__pycache__\n", ["code/deep/two.py", "code/one.py"]),
        ("**/two.py\n", ["code/deep/__pycache__/two.pyc", "code/one.py"]),
        ("**/deep/__pycache__\n", ["code/deep/two.py", "code/one.py"]),
        ("  code/deep/  \n", ["code/one.py"]),
        ("/code/deep\n", ["code/one.py"]),
        ("code/*/two.py\n", ["code/deep/__pycache__/two.pyc", "code/one.py"]),
        ("code/*.py\n", ["code/deep/__pycache__/two.pyc", "code/deep/two.py"]),
        ("*.py\ndeep\n", ["code/deep/__pycache__/two.pyc", "code/deep/two.py", "code/one.py"]),
        ("code/one.py\ncode/deep/__pycache__\n", ["code/deep/two.py"]),
        ("code\n", []),
    ],
)
def test_dockerignore_excludes_files(project: Project, ignored: str, left: list[str]) -> None:
    recipe(project, "COPY code /app/code", ignored=ignored)
    assert built(project) == left


def test_comments_in_dockerignore_are_skipped(project: Project) -> None:
    write(project.root, "#a.py")
    recipe(project, "COPY #a.py /app/", ignored="#a.py\n")
    assert built(project) == ["#a.py"]


def test_slashes_around_a_pattern_are_ignored(project: Project) -> None:
    write(project.root, "X/a.py", "X/X")
    recipe(project, "COPY X /app/X", ignored="X/X\n")
    assert built(project) == ["X/a.py"]


def test_dockerignore_excludes_a_file_that_is_copied_by_name(project: Project) -> None:
    recipe(project, "COPY a.py /app/", ignored="a.py")
    assert built(project) == []


def test_an_exception_in_dockerignore_is_an_error(project: Project) -> None:
    recipe(project, "COPY code /app/code", ignored="code\n !code/one.py\n")
    with pytest.raises(MlopsError) as caught:
        build_context(project, "training")
    assert caught.value.what == ".dockerignore: exceptions are not supported: !code/one.py"


def test_copying_a_missing_file_is_an_error(project: Project) -> None:
    recipe(project, "COPY a.py nowhere /app/")
    with pytest.raises(MlopsError) as caught:
        build_context(project, "training")
    assert caught.value.what == "pipelines/training/Dockerfile copies nowhere, which does not exist"


def test_an_unknown_image_or_a_missing_dockerfile_is_an_error(project: Project) -> None:
    write(project.root, "pipelines/monitoring/Dockerfile")
    (project.root / "pipelines/serving/Dockerfile").unlink()
    for name, what in (
        ("monitoring", "unknown image: expected one of training, serving, found 'monitoring'"),
        ("serving", "pipelines/serving/Dockerfile does not exist"),
    ):
        with pytest.raises(MlopsError) as caught:
            build_context(project, name)
        assert caught.value.what == what


# --- pins -------------------------------------------------------------------------------------------------------------


def pinned(project: Project) -> tuple[str | None, str | None]:
    images = project.stack("dev").config.environment.images
    return images.training, images.serving


def test_pinning_changes_only_the_line_of_the_images(project: Project) -> None:
    before = project.stack_file("dev").read_text()
    assert pin_images(project, "dev", Images(training=OLD, serving=NEW)) is True
    assert pinned(project) == (OLD, NEW)
    line = f"    images: {{training: {OLD}, serving: {NEW}}}"
    assert project.stack_file("dev").read_text() == before.replace("    images: {training: null, serving: null}", line)


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (Images(training=OLD), f"    images: {{training: {OLD}, serving: null}}\n"),
        (Images(serving=OLD), f"    images: {{training: null, serving: {OLD}}}\n"),
    ],
)
def test_an_image_that_was_never_built_stays_null(project: Project, images: Images, line: str) -> None:
    pin_images(project, "dev", images)
    assert line in project.stack_file("dev").read_text()


def test_an_image_without_a_new_digest_stays_pinned(project: Project) -> None:
    assert pin_images(project, "dev", Images(training=OLD)) is True
    assert pinned(project) == (OLD, None)
    assert pin_images(project, "dev", Images(serving=NEW)) is True
    assert pinned(project) == (OLD, NEW)
    assert pin_images(project, "dev", Images(training=NEW)) is True
    assert pinned(project) == (NEW, NEW)


@pytest.mark.parametrize("images", [Images(), Images(serving=NEW), Images(training=OLD, serving=NEW)])
def test_pinning_the_same_digests_writes_nothing(project: Project, images: Images) -> None:
    pin_images(project, "dev", Images(training=OLD, serving=NEW))
    project.stack_file("dev").chmod(0o444)
    before = project.stack_file("dev").stat().st_ino
    assert pin_images(project, "dev", images) is False
    assert project.stack_file("dev").stat().st_ino == before


def test_a_file_that_is_not_valid_is_not_changed(project: Project) -> None:
    path = project.stack_file("dev")
    lines = "  # under no environment:\n    other:\n      images: {}\n"
    path.write_text(path.read_text().replace("    images: {training: null, serving: null}\n", lines))
    before = path.read_bytes()
    with pytest.raises(MlopsError, match=path.name):
        pin_images(project, "dev", Images(training=OLD))
    assert path.read_bytes() == before


def test_only_the_first_images_line_is_changed(project: Project) -> None:
    path = project.stack_file("dev")
    window = "start: 2026-12-24T00:00:00Z, end: 2026-12-27T00:00:00Z"
    freeze = f'    freezes:\n      - {{{window}, reason: "now no\n          images: are built"}}\n'
    path.write_text(path.read_text() + freeze)
    pin_images(project, "dev", Images(training=OLD))
    assert path.read_text().endswith(freeze)
    assert pinned(project) == (OLD, None)
