"""The images workflow finds or pushes images in the repositories from which environments pull."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner

from infra.scopes import Environment
from pipelines.cli.ci import ci
from pipelines.declarations.project import Project
from tests.aws import emulated_account
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
COMMIT = "a" * 40


def outputs(path: Path) -> dict[str, str]:
    found = dict(line.split("=", 1) for line in path.read_text().splitlines())
    path.unlink()
    return found


@pytest.mark.parametrize("image", ["training", "serving"])
def test_an_image_is_built_once_for_its_content(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = ("serving", "pipelines", "spark", "uv")
    copied = ("pipelines", *(f"requirements/{group}.txt" for group in groups))
    project = Project(copy_as_forked(tmp_path / "project", *copied, ".dockerignore"))
    output = tmp_path / "output"
    run = {"GITHUB_OUTPUT": output, "GITHUB_SHA": COMMIT, "GITHUB_RUN_ID": "71", "GITHUB_RUN_ATTEMPT": "2"}
    config = project.stack("prod").config
    prod = Environment("prod", project.name, config.environment, "123456789012", config.region)
    find = ["images", "find", image, "--registry", REGISTRY]
    with emulated_account():
        for name, value in run.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.chdir(project.root)
        ecr = boto3.client("ecr")
        ecr.create_repository(repositoryName=f"mlops/{image}", imageTagMutability="IMMUTABLE")

        CliRunner().invoke(ci, find, catch_exceptions=False)
        found = outputs(output)
        assert found == {
            "repository": prod.image_repository(image),  # type: ignore[arg-type]
            "tag": f"{prod.image_repository(image)}:{COMMIT}-71-2",  # type: ignore[arg-type]
            "platforms": "linux/amd64",
            "digest": "",
        }
        index = '{"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
        name, tag = found["tag"].partition("/")[2].split(":")
        pushed = ecr.put_image(repositoryName=name, imageManifest=index, imageTag=tag)["image"]["imageId"][
            "imageDigest"
        ]
        CliRunner().invoke(ci, find, catch_exceptions=False)
        assert outputs(output)["digest"] == "", "a build that did not end is not found"
        mark = ["images", "mark", image, pushed, "--registry", REGISTRY]
        assert CliRunner().invoke(ci, mark, catch_exceptions=False).exit_code == 0
        CliRunner().invoke(ci, find, catch_exceptions=False)
        assert outputs(output)["digest"] == pushed

        gate = project.root / "pipelines" / "promotion" / "gates" / "soak.py"
        gate.write_text(gate.read_text() + "# another comment\n")
        CliRunner().invoke(ci, find, catch_exceptions=False)
        assert outputs(output)["digest"] == pushed, "a change of a gate builds nothing"
        code = project.root / "pipelines" / "serving" / "server.py"
        code.write_text(code.read_text() + "# another comment\n")
        CliRunner().invoke(ci, find, catch_exceptions=False)
        assert outputs(output)["digest"] == ""
