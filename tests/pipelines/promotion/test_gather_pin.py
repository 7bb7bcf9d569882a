"""Facts of image pins: a repository with the product's code, an image in ECR, and environments with live bundles."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project, render_release
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.admission import GateRefusedError
from pipelines.promotion.facts.gather_pin import PinChange, gather_pin, read_pin_changes
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.gates.pins import judge_pin
from pipelines.promotion.image_trial import has_packages, source_of
from pipelines.promotion.images import build_tag, content_key, key_tag, pin_images
from pipelines.promotion.pinning import NoImageError, admit_pins, record_pins, refuse_unserved
from pipelines.promotion.select import select_changes
from pipelines.registry.container_images import ImageRepository, find_image, tag_image
from pipelines.registry.image_records import read_image_record, record_image
from pipelines.registry.ledger import Event, Ledger
from tests.aws import ACCOUNT, REGION, EmulatedAccount
from tests.clones import commit_all, connect
from tests.pipelines.serving.bundles import linear_bundle
from tests.sample_project import ROOT, copy_as_forked
from tests.signing_environments import make_key, make_signing_environment, register, with_empty_registry

pytestmark = pytest.mark.slow

MODEL = "diabetes-progression"
REPOSITORY = ImageRepository(ACCOUNT, REGION, "mlops/serving")
OLD = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a clone of a repository with the product's code, on main."""
    folder = tmp_path_factory.mktemp("pins")
    copied = ("pipelines", "requirements/serving.txt", "requirements/uv.txt", ".dockerignore")
    root = copy_as_forked(folder / "clone", *copied)
    connect(root, folder / "origin.git")
    return Project(root)


@pytest.fixture(scope="module")
def repositories(account: EmulatedAccount) -> None:
    for name in ("serving", "training"):
        boto3.client("ecr").create_repository(repositoryName=f"mlops/{name}", imageTagMutability="IMMUTABLE")


@pytest.fixture(scope="module")
def provisioned(account: EmulatedAccount) -> tuple[EnvironmentDescriptor, EnvironmentDescriptor]:
    dev = make_signing_environment("dev")
    return dev, make_signing_environment("staging", dev)


@pytest.fixture
def environments(
    provisioned: tuple[EnvironmentDescriptor, EnvironmentDescriptor], repositories: None
) -> dict[str, EnvironmentDescriptor]:
    """Return dev and staging with empty registries; staging serves a bundle."""
    dev, staging = (with_empty_registry(one) for one in provisioned)
    made = linear_bundle()
    digest = register(dev, made.files, model=MODEL)
    serve(staging, dev, digest, made.files)
    return {"dev": dev, "staging": staging}


def serve(staging: EnvironmentDescriptor, dev: EnvironmentDescriptor, digest: str, files: dict[str, bytes]) -> None:
    from pipelines.promotion.replicate import replicate

    replicate(dev, staging, MODEL, digest)
    event = Event.of(attempt=digest, action="promotion", result="verified", before=None, to=digest, live=digest)
    Ledger(staging, MODEL).append(lambda _: event)


def put(manifest: dict[str, Any], tag: str = "") -> str:
    text = json.dumps(manifest)
    digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    named = {"imageTag": tag} if tag else {}
    boto3.client("ecr").put_image(
        repositoryName=REPOSITORY.name,
        imageManifest=text,
        imageManifestMediaType=manifest["mediaType"],
        imageDigest=digest,
        **named,
    )
    return digest


def push(tag: str, *, salt: str = "", scan: bool = True) -> str:
    """Push an index with an image for amd64 and an attestation, as docker buildx does; return its digest."""
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": OLD, "size": 7}
    layers = [{"digest": OLD, "size": 120_000_000}, {"digest": OLD, "size": 90_000_000}]
    manifest = "application/vnd.oci.image.manifest.v1+json"
    child = put({"mediaType": manifest, "config": config, "layers": layers, "annotations": {"salt": salt}})
    if scan:
        boto3.client("ecr").start_image_scan(repositoryName=REPOSITORY.name, imageId={"imageDigest": child})
    listed = [
        {"digest": child, "platform": {"architecture": "amd64", "os": "linux"}},
        {"digest": OLD, "platform": {"architecture": "unknown", "os": "unknown"}},
    ]
    return put({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed}, tag)


@pytest.fixture(scope="module")
def image(project: Project, repositories: None) -> str:
    """Return the digest of an image that was built from main."""
    digest = push(build_tag(Git(project.root).head(), "71", "1"), salt="good")
    tag_image(REPOSITORY, digest, key_tag(content_key(project, "serving")))
    return digest


def gathered(project: Project, environments: dict[str, EnvironmentDescriptor], digest: str | None) -> PinFacts:
    change = PinChange("staging", "serving", digest, OLD, ("Pulumi.staging.yaml",), only_pins=True)
    return gather_pin(project, Git(project.root), environments, change)


def refusing(facts: PinFacts) -> dict[str, str]:
    return {v.gate: v.why for v in judge_pin(facts) if v.outcome != "pass"}


def test_an_image_that_dev_verified_may_go_to_staging(
    project: Project, environments: dict[str, EnvironmentDescriptor], image: str
) -> None:
    record_image(environments["dev"], "serving", image, (MODEL,), "", datetime.now(UTC) - timedelta(hours=1))
    facts = gathered(project, environments, image)
    assert facts.unknown == {}
    assert facts.origin is not None and facts.origin.commit == Git(project.root).head()
    assert facts.sizes == {"amd64": 210_000_000}
    assert facts.scans is not None and facts.scans["amd64"].status == "COMPLETE"
    assert [(one.name, one.severity) for one in facts.scans["amd64"].findings] == [("CVE-9999-9999", "high")]
    assert facts.trials is not None and facts.trials[MODEL].problem == "" and facts.trials[MODEL].rows > 0
    assert refusing(facts) == {}


def test_a_live_bundle_that_predicts_something_else_with_the_image_refuses_it(
    project: Project, environments: dict[str, EnvironmentDescriptor], image: str
) -> None:
    record_image(environments["dev"], "serving", image, (MODEL,), "", datetime.now(UTC))
    staging = with_empty_registry(environments["staging"])
    made = linear_bundle(expected=1.0)
    serve(staging, environments["dev"], register(environments["dev"], made.files, model=MODEL), made.files)
    found = refusing(gathered(project, {**environments, "staging": staging}, image))
    assert set(found) == {"golden"}
    assert f"{MODEL}: golden.json: output" in found["golden"]


def test_an_image_that_is_not_in_the_repository_is_refused(
    project: Project, environments: dict[str, EnvironmentDescriptor]
) -> None:
    facts = gathered(project, environments, "sha256:" + "9" * 64)
    assert "has no such image" in facts.unknown["origin"]
    assert set(refusing(facts)) == {"source", "vulnerabilities", "size", "architecture", "golden", "order"}


def test_an_image_of_a_commit_that_is_not_on_main_is_refused_and_its_code_is_not_run(
    project: Project, environments: dict[str, EnvironmentDescriptor]
) -> None:
    digest = push(build_tag("f" * 40, "72", "1"), salt="elsewhere")
    facts = gathered(project, environments, digest)
    assert "so its code is not run" in facts.unknown["trials"]
    assert {"source", "golden"} <= set(refusing(facts))


def test_an_image_without_a_scan_result_has_to_wait(
    project: Project, environments: dict[str, EnvironmentDescriptor]
) -> None:
    digest = push(build_tag(Git(project.root).head(), "73", "1"), salt="unscanned", scan=False)
    facts = gathered(project, environments, digest)
    assert "no scan result of the image yet" in facts.unknown["scans"]


def test_an_environment_that_was_never_up_serves_nothing(
    project: Project, environments: dict[str, EnvironmentDescriptor], image: str
) -> None:
    record_image(environments["dev"], "serving", image, (), "", datetime.now(UTC))
    facts = gathered(project, {"dev": environments["dev"]}, image)
    assert (facts.live, facts.trials, refusing(facts)) == ({}, {}, {})
    with pytest.raises(MlopsError, match="no environment is up"):
        gathered(project, {}, image)


# --- finding and marking ---------------------------------------------------------------------------------------------


def test_an_image_is_found_by_its_content_once_it_is_marked(project: Project, image: str) -> None:
    tag = key_tag(content_key(project, "serving"))
    assert find_image(REPOSITORY, tag) == image
    tag_image(REPOSITORY, image, tag)
    other = push("another", salt="another")
    with pytest.raises(MlopsError, match="is taken: expected"):
        tag_image(REPOSITORY, other, tag)
    assert find_image(REPOSITORY, key_tag("1" * 64)) is None


def test_a_repository_is_named_by_its_url() -> None:
    assert ImageRepository.of_url(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/mlops/serving") == REPOSITORY
    with pytest.raises(MlopsError, match="not the URL of an ECR repository"):
        ImageRepository.of_url("docker.io/library/python")


def test_the_packages_of_this_python_are_recognised() -> None:
    text = (ROOT / "requirements" / "serving.txt").read_text()
    assert has_packages(text)
    assert not has_packages(text.replace("onnxruntime==", "onnxruntime==0.0."))
    assert not has_packages("no-such-package==1.0 \\\n")
    assert has_packages("pydantic==0 ; python_version < '3'\n" + text)
    assert not has_packages("")


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_keeps_its_time_and_gains_models(environments: dict[str, EnvironmentDescriptor]) -> None:
    dev, first = environments["dev"], datetime(2026, 3, 2, tzinfo=UTC)
    assert read_image_record(dev, "serving", OLD) is None
    record_image(dev, "serving", OLD, ("other",), "run-1", first)
    record_image(dev, "serving", OLD, ("one",), "run-2", first + timedelta(days=1))
    found = read_image_record(dev, "serving", OLD)
    assert found is not None
    assert (found.models, found.verified_at, found.run) == (("one", "other"), first, "run-1")
    assert read_image_record(dev, "training", OLD) is None


def test_a_record_that_another_environment_signed_is_not_trusted(
    environments: dict[str, EnvironmentDescriptor],
) -> None:
    from pipelines.registry.signing import BadSignatureError

    dev, staging = environments["dev"], environments["staging"]
    forged = staging.model_copy(update={"registry_bucket": dev.registry_bucket})
    record_image(forged, "serving", OLD, (MODEL,), "", datetime.now(UTC))
    with pytest.raises(BadSignatureError, match="no valid signature by a trusted key"):
        read_image_record(dev, "serving", OLD)
    with pytest.raises(BadSignatureError):
        read_image_record(dev.model_copy(update={"trusted_keys": {"dev": make_key()[1]}}), "serving", OLD)


# --- a deployment ----------------------------------------------------------------------------------------------------


def test_a_deployment_judges_an_image_that_the_environment_does_not_run(
    project: Project, environments: dict[str, EnvironmentDescriptor], image: str
) -> None:
    pin_images(project, "staging", Images(serving=image))
    said: list[str] = []
    with pytest.raises(GateRefusedError, match="order: dev never ran it; pin it in dev first"):
        admit_pins(project, Git(project.root), environments, "staging", said.append)
    assert said == ["serving image: 7 of 8 gates pass"]

    dev, staging = environments["dev"], environments["staging"]
    reference = ImageReferences(serving=f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/mlops/serving@{image}")
    record_pins(dev.model_copy(update={"images": reference}), [MODEL])
    admit_pins(project, Git(project.root), environments, "staging", said.append)
    assert said[1:] == ["serving image: 8 of 8 gates pass"]
    record_pins(staging.model_copy(update={"images": reference}), [MODEL])
    admit_pins(project, Git(project.root), environments, "staging", said.append)
    assert said[2:] == ["serving image: 8 of 8 gates pass"], "one that was verified before, too"
    running = {**environments, "staging": with_empty_registry(staging).model_copy(update={"images": reference})}
    admit_pins(project, Git(project.root), running, "staging", said.append)
    assert len(said) == 3, "an image that runs is not judged"


def test_a_release_waits_for_a_serving_image_before_anything_is_recorded(tmp_path: Path) -> None:
    project = Project(copy_as_forked(tmp_path))
    refuse_unserved(project, "staging")
    release = Release(model=MODEL, environment="staging", bundle=OLD, replaces=None)
    project.release_file(MODEL, "staging").write_text(render_release(release))
    with pytest.raises(NoImageError, match=f"staging pins no serving image, so it cannot serve {MODEL}") as caught:
        refuse_unserved(project, "staging")
    assert "pin/staging" in caught.value.fix
    refuse_unserved(project, "prod")


# --- changes of pins -------------------------------------------------------------------------------------------------


def test_a_change_of_pins_is_told_from_other_changes(project: Project, image: str) -> None:
    git, base = Git(project.root), Git(project.root).head()
    git.run("checkout", "--quiet", "--", ".")
    pin_images(project, "staging", Images(serving=image))
    commit_all(project.root, "Pin")
    (change,) = read_pin_changes(git, base, "HEAD")
    assert change == PinChange("staging", "serving", image, None, ("Pulumi.staging.yaml",), only_pins=True)
    changed = select_changes(git, base)
    assert (changed.releases, changed.pins, changed.other) == ((), ("Pulumi.staging.yaml",), ())

    path = project.stack_file("staging")
    path.write_text(path.read_text().replace("retention_days: 1", "retention_days: 2"))
    commit_all(project.root, "Retain")
    (change,) = read_pin_changes(git, base, "HEAD")
    assert change == replace(change, only_pins=False)
    changed = select_changes(git, base)
    assert (changed.pins, changed.other) == (("Pulumi.staging.yaml",), ("Pulumi.staging.yaml",))
    only_config = select_changes(git, "HEAD^")
    assert (only_config.pins, only_config.other) == ((), ("Pulumi.staging.yaml",))

    path.write_text("config: [")
    commit_all(project.root, "Break")
    assert read_pin_changes(git, base, "HEAD") == []
    assert select_changes(git, base).other == ("Pulumi.staging.yaml",)


def test_the_content_key_depends_on_what_an_image_holds(project: Project, tmp_path: Path) -> None:
    root = copy_as_forked(tmp_path, "pipelines", "requirements/serving.txt", "requirements/uv.txt", ".dockerignore")
    other = Project(root)
    assert content_key(other, "serving") == content_key(other, "serving")
    key = content_key(other, "serving")
    for name, same in (
        ("pipelines/promotion/gates/soak.py", True),
        ("pipelines/cli/ci.py", True),
        (f"models/{MODEL}/releases/dev.yaml", True),
        ("pipelines/serving/golden.py", False),
        ("requirements/serving.txt", False),
        ("pipelines/serving/Dockerfile", False),
    ):
        path = root / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n# another line\n")
        assert (content_key(other, "serving") == key) is same, name
        path.write_bytes(before)
    path = other.stack_file("prod")
    path.write_text(path.read_text() + "    architectures: [amd64, arm64]\n")
    assert content_key(Project(root), "serving") != key, "an image for two architectures is another image"


def test_the_source_of_a_commit_is_its_files_and_leaves_the_clone_alone(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    git = Git(clone)
    git.run("init", "--quiet", "--initial-branch=main")
    (clone / "run.sh").write_text("#!/bin/sh\n")
    (clone / "run.sh").chmod(0o755)
    (clone / "a").mkdir()
    (clone / "a" / "b.txt").write_text("b")
    git.run("add", ".")
    git.run("commit", "--quiet", "-m", "first")
    first = git.head()
    (clone / "a" / "b.txt").write_text("staged")
    git.run("add", ".")
    with source_of(git, first) as source:
        files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
        assert files == {"run.sh", "a/b.txt"}
        assert (source / "a" / "b.txt").read_text() == "b" and os.access(source / "run.sh", os.X_OK)
    assert not source.exists()
    assert git.read("diff", "--cached", "--name-only") == "a/b.txt"
    assert (clone / "a" / "b.txt").read_text() == "staged"
