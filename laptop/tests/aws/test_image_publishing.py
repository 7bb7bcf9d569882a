"""Tests of image publishing without a container engine."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laptop.aws import image_content
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.image_content import ImageContext
from pipelines.declarations.errors import MlopsError


@pytest.fixture
def context(tmp_path: Path) -> ImageContext:
    (tmp_path / "images" / "serving").mkdir(parents=True)
    (tmp_path / "images" / "serving" / "Dockerfile").write_text("FROM scratch\nCOPY a.py b.py ./\n")
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "b.py").write_text("b")
    return ImageContext.of("serving", [tmp_path / "a.py", tmp_path / "b.py"], tmp_path)


def test_the_same_content_has_the_same_digest_in_any_folder(context: ImageContext, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("a.py", "b.py"):
        (other / name).write_text(name[0])
    (other / "Containerfile").write_text("FROM scratch\nCOPY a.py b.py ./\n")
    copy = ImageContext.of("serving", [other / "b.py", other / "a.py"], other, dockerfile=other / "Containerfile")
    assert image_content.digest(copy) == image_content.digest(context)


@pytest.mark.parametrize("change", ["content", "name", "dockerfile", "fewer"])
def test_any_change_of_the_content_changes_the_digest(context: ImageContext, change: str) -> None:
    before, files = image_content.digest(context), list(context.files)
    if change == "content":
        files[0].write_text("changed")
    elif change == "name":
        files[0] = files[0].rename(files[0].with_name("c.py"))
    elif change == "dockerfile":
        context.dockerfile.write_text("FROM scratch\n")
    else:
        files.pop()
    assert image_content.digest(ImageContext.of("serving", files, context.root)) != before


def test_a_published_image_has_the_digest_computed_before(
    provider: AwsProvider, make: Any, name: str, context: ImageContext
) -> None:
    repository = make("aws:ecr/repository:Repository", name, imageTagMutability="IMMUTABLE").outputs["name"]
    expected = image_content.digest(context)
    assert not image_content.exists(provider.cloud, repository, expected)
    assert image_content.publish(provider.cloud, repository, context) == expected
    assert image_content.publish(provider.cloud, repository, context) == expected
    assert image_content.exists(provider.cloud, repository, expected)

    held = provider.cloud.client("ecr").batch_get_image(
        repositoryName=repository, imageIds=[{"imageDigest": expected}]
    )["images"]
    manifest = held[0]["imageManifest"]
    assert "sha256:" + hashlib.sha256(manifest.encode()).hexdigest() == expected
    index = json.loads(manifest)
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    (child,) = index["manifests"]
    assert child["platform"] == {"architecture": "amd64", "os": "linux"}
    held = provider.cloud.client("ecr").batch_get_image(
        repositoryName=repository, imageIds=[{"imageDigest": child["digest"]}]
    )["images"]
    manifest = held[0]["imageManifest"]
    assert "sha256:" + hashlib.sha256(manifest.encode()).hexdigest() == child["digest"]
    assert json.loads(manifest)["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_an_image_for_two_architectures_has_two_manifests_and_another_digest(context: ImageContext) -> None:
    both = image_content.image(replace(context, architectures=("amd64", "arm64")))
    listed = json.loads(both.manifest)["manifests"]
    assert [child["platform"]["architecture"] for child in listed] == ["amd64", "arm64"]
    assert {child["digest"] for child in listed} == set(both.children)
    assert both.digest != image_content.digest(context)


def test_the_files_of_a_published_image_do_not_change(
    provider: AwsProvider, make: Any, name: str, context: ImageContext
) -> None:
    repository = make("aws:ecr/repository:Repository", name).outputs["name"]
    nested = context.root / "package" / "module.py"
    nested.parent.mkdir()
    nested.write_text("first")
    context = ImageContext(context.name, context.dockerfile, (*context.files, nested), context.root)
    first = image_content.publish(provider.cloud, repository, context)
    nested.write_text("second")
    second = image_content.publish(provider.cloud, repository, context)
    kept = {digest: image_content.folder_of(provider.cloud.home, digest) for digest in (first, second)}
    assert (kept[first] / "package" / "module.py").read_text() == "first"
    assert (kept[second] / "package" / "module.py").read_text() == "second"
    assert (kept[first] / "a.py").read_text() == "a"
    assert not list(kept[first].parent.glob(".*"))  # no partial copies are left


def test_a_file_that_changes_during_publishing_is_refused(
    provider: AwsProvider, make: Any, name: str, context: ImageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("aws:ecr/repository:Repository", name).outputs["name"]
    (context.root / "a.py").write_text(name)
    copy = shutil.copyfile

    def slow_copy(source: Path, to: Path) -> None:
        copy(source, to)
        to.write_text("changed")

    monkeypatch.setattr(shutil, "copyfile", slow_copy)
    digest = image_content.digest(context)
    with pytest.raises(MlopsError, match="changed while it was published"):
        image_content.publish(provider.cloud, repository, context)
    assert not image_content.folder_of(provider.cloud.home, digest).exists()
    assert not image_content.exists(provider.cloud, repository, digest)


def test_publishing_to_a_missing_repository_is_refused(provider: AwsProvider, context: ImageContext) -> None:
    assert not image_content.exists(provider.cloud, "nowhere", image_content.digest(context))
    with pytest.raises(MlopsError, match="nowhere"):
        image_content.publish(provider.cloud, "nowhere", context)


def test_a_missing_file_and_one_outside_the_project_are_named(context: ImageContext, tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match=r"missing\.py"):
        image_content.digest(ImageContext.of("serving", [context.root / "missing.py"], context.root))
    outside = tmp_path.parent / "outside.py"
    outside.write_text("x")
    with pytest.raises(MlopsError, match="outside"):
        image_content.digest(ImageContext.of("serving", [outside], context.root))
