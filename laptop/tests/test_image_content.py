"""Tests that the laptop's images have all of the code that their pods run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from laptop.aws.image_content import ImageContext, keep
from pipelines.declarations.project import Project
from pipelines.promotion.images import build_context
from pipelines.training.training_run import source_of
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

MODEL = "diabetes-progression"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a checkout with this repository's code."""
    folder = tmp_path_factory.mktemp("checkout")
    return Project(copy_as_forked(folder, "infra", "pipelines", "requirements", ".dockerignore"))


@pytest.fixture(scope="module")
def images(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Map each image to the folder with its content."""
    home = tmp_path_factory.mktemp("aws")
    contexts = {name: build_context(project, name) for name in ("training", "serving")}
    return {
        name: keep(ImageContext.of(name, built.files, project.root, dockerfile=built.dockerfile), home)
        for name, built in contexts.items()
    }


def run(folder: Path, code: str) -> str:
    """Return the output of Python code in a pod of an image."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("training", ["pipelines.data.__main__", "pipelines.data.ingest", "pipelines.training.__main__"]),
        ("training", ["pipelines.training.training_run", "pipelines.training.package", "pipelines.training.evaluate"]),
        ("serving", ["pipelines.serving.__main__", "pipelines.serving.check", "pipelines.registry.evidence"]),
    ],
)
def test_a_pod_imports_its_code_from_its_image_only(images: dict[str, Path], image: str, modules: list[str]) -> None:
    code = f"""
import importlib, json, sys
for name in {modules!r}: importlib.import_module(name)
print(json.dumps([m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in ("pipelines", "infra")]))
"""
    files = [Path(file) for file in json.loads(run(images[image], code))]
    assert len(files) > len(modules)
    assert all(file.is_relative_to(images[image]) for file in files)


def test_the_source_digest_of_a_bundle_is_the_same_in_the_image_and_in_a_checkout(
    project: Project, images: dict[str, Path]
) -> None:
    code = f"""
from pipelines.declarations.project import Project
from pipelines.training.training_run import source_of
print(source_of(Project.find(), {MODEL!r}).model_dump_json())
"""
    assert json.loads(run(images["training"], code)) == source_of(project, MODEL).model_dump()


def test_an_image_excludes_files_that_its_pods_do_not_need(images: dict[str, Path]) -> None:
    for folder in images.values():
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        assert not names & {"infra", "tests", "pipelines/cli", "pipelines/promotion", "data-contracts/samples"}
        assert not [name for name in names if "/releases/" in name]
    assert not (images["serving"] / "models").exists()


def test_a_pod_finds_the_project_of_its_image_and_not_one_around_it(project: Project) -> None:
    built = build_context(project, "training")
    context = ImageContext.of("training", built.files, project.root, dockerfile=built.dockerfile)
    folder = keep(context, project.root / ".mlops" / "aws")
    assert (project.root / "Pulumi.yaml").is_file()
    assert Project.find(folder).root == folder.resolve()
