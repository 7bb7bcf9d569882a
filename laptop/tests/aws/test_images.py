"""Images without a container engine: one content, one digest."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.aws import images
from laptop.aws.images import Context
from laptop.aws.provider import AwsProvider
from pipelines.declarations.errors import MlopsError


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "images" / "serving").mkdir(parents=True)
    (tmp_path / "images" / "serving" / "Dockerfile").write_text("FROM scratch\nCOPY a.py b.py ./\n")
    (tmp_path / "a.py").write_text("a")
    (tmp_path / "b.py").write_text("b")
    return Context.of("serving", [tmp_path / "a.py", tmp_path / "b.py"], tmp_path)


def test_the_same_content_is_the_same_image_wherever_it_lies(context: Context, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("a.py", "b.py"):
        (other / name).write_text(name[0])
    (other / "Containerfile").write_text("FROM scratch\nCOPY a.py b.py ./\n")
    copy = Context.of("serving", [other / "b.py", other / "a.py"], other, dockerfile=other / "Containerfile")
    assert images.digest(copy) == images.digest(context)


@pytest.mark.parametrize("change", ["content", "name", "dockerfile", "fewer"])
def test_any_change_of_what_goes_in_is_another_image(context: Context, change: str) -> None:
    before, files = images.digest(context), list(context.files)
    if change == "content":
        files[0].write_text("changed")
    elif change == "name":
        files[0] = files[0].rename(files[0].with_name("c.py"))
    elif change == "dockerfile":
        context.dockerfile.write_text("FROM scratch\n")
    else:
        files.pop()
    assert images.digest(Context.of("serving", files, context.root)) != before


def test_a_published_image_is_found_by_the_digest_computed_without_publishing(
    provider: AwsProvider, make: Any, name: str, context: Context
) -> None:
    repository = make("aws:ecr/repository:Repository", name, imageTagMutability="IMMUTABLE").outputs["name"]
    expected = images.digest(context)
    assert not images.exists(provider.cloud, repository, expected)
    assert images.publish(provider.cloud, repository, context) == expected
    assert images.publish(provider.cloud, repository, context) == expected
    assert images.exists(provider.cloud, repository, expected)

    held = provider.cloud.client("ecr").batch_get_image(
        repositoryName=repository, imageIds=[{"imageDigest": expected}]
    )["images"]
    manifest = held[0]["imageManifest"]
    assert "sha256:" + hashlib.sha256(manifest.encode()).hexdigest() == expected
    assert json.loads(manifest)["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_the_content_of_a_published_image_is_given_to_who_may_have_it_and_to_who_has_the_url(
    provider: AwsProvider, make: Any, name: str, context: Context, pod: Any
) -> None:
    created = make("aws:ecr/repository:Repository", name).outputs
    digest = images.publish(provider.cloud, created["name"], context)
    statement = {"Effect": "Allow", "Action": "ecr:GetDownloadUrlForLayer", "Resource": created["arn"]}
    reader, ecr = pod(statement)["ecr"], provider.cloud.client("ecr")
    held = ecr.batch_get_image(repositoryName=created["name"], imageIds=[{"imageDigest": digest}])["images"]
    manifest = json.loads(held[0]["imageManifest"])
    for part in (manifest["config"], *manifest["layers"]):
        given = {"repositoryName": created["name"], "layerDigest": part["digest"]}
        url = reader.get_download_url_for_layer(**given)["downloadUrl"]
        with urllib.request.urlopen(url) as answer:
            content = answer.read()
        assert (images._digest(content), len(content)) == (part["digest"], part["size"])
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url[:-1] + ("a" if url[-1] != "a" else "b"))
        with pytest.raises(ClientError, match="GetDownloadUrlForLayer"):
            pod()["ecr"].get_download_url_for_layer(**given)
    with pytest.raises(ClientError, match="LayersNotFound"):
        reader.get_download_url_for_layer(repositoryName=created["name"], layerDigest=digest)


def test_what_refers_to_an_image_is_listed_to_who_may_read_images(
    provider: AwsProvider, make: Any, name: str, context: Context, pod: Any
) -> None:
    created, ecr = make("aws:ecr/repository:Repository", name).outputs, provider.cloud.client("ecr")
    digest = images.publish(provider.cloud, created["name"], context)
    media_type = "application/vnd.oci.image.manifest.v1+json"
    statement = json.dumps({"schemaVersion": 2, "mediaType": media_type, "subject": {"digest": digest}})
    said = ecr.put_image(
        repositoryName=created["name"], imageManifest=statement, imageDigest=images._digest(statement.encode())
    )["image"]["imageId"]["imageDigest"]
    reader = pod({"Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": created["arn"]})["ecr"]
    asked = {"repositoryName": created["name"], "subjectId": {"imageDigest": digest}}
    assert [one["digest"] for one in reader.list_image_referrers(**asked)["referrers"]] == [said]
    asked["subjectId"] = {"imageDigest": said}
    assert reader.list_image_referrers(**asked)["referrers"] == []
    with pytest.raises(ClientError, match="ecr:BatchGetImage"):
        pod()["ecr"].list_image_referrers(**asked)


def test_the_files_of_a_published_image_stay_as_they_were(
    provider: AwsProvider, make: Any, name: str, context: Context
) -> None:
    repository = make("aws:ecr/repository:Repository", name).outputs["name"]
    nested = context.root / "package" / "module.py"
    nested.parent.mkdir()
    nested.write_text("first")
    context = Context(context.name, context.dockerfile, (*context.files, nested), context.root)
    first = images.publish(provider.cloud, repository, context)
    nested.write_text("second")
    second = images.publish(provider.cloud, repository, context)
    kept = {digest: images.folder_of(provider.cloud.home, digest) for digest in (first, second)}
    assert (kept[first] / "package" / "module.py").read_text() == "first"
    assert (kept[second] / "package" / "module.py").read_text() == "second"
    assert (kept[first] / "a.py").read_text() == "a"
    assert not list(kept[first].parent.glob(".*"))  # nothing half done is left


def test_a_file_that_changes_while_it_is_published_makes_no_image(
    provider: AwsProvider, make: Any, name: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make("aws:ecr/repository:Repository", name).outputs["name"]
    (context.root / "a.py").write_text(name)
    copy = shutil.copyfile

    def slow_copy(source: Path, to: Path) -> None:
        copy(source, to)
        to.write_text("changed")

    monkeypatch.setattr(images.shutil, "copyfile", slow_copy)
    digest = images.digest(context)
    with pytest.raises(MlopsError, match="changed while it was published"):
        images.publish(provider.cloud, repository, context)
    assert not images.folder_of(provider.cloud.home, digest).exists()
    assert not images.exists(provider.cloud, repository, digest)


def test_an_image_is_not_published_to_a_repository_that_is_not_there(provider: AwsProvider, context: Context) -> None:
    assert not images.exists(provider.cloud, "nowhere", images.digest(context))
    with pytest.raises(MlopsError, match="nowhere"):
        images.publish(provider.cloud, "nowhere", context)


def test_a_missing_file_and_one_outside_the_project_are_named(context: Context, tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match=r"missing\.py"):
        images.digest(Context.of("serving", [context.root / "missing.py"], context.root))
    outside = tmp_path.parent / "outside.py"
    outside.write_text("x")
    with pytest.raises(MlopsError, match="outside"):
        images.digest(Context.of("serving", [outside], context.root))
