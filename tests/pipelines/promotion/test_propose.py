from __future__ import annotations

import subprocess
from pathlib import Path

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.promotion.propose import next_pins, write_live_release, write_release
from pipelines.promotion.replicate import replicate
from pipelines.registry import bundles, evidence, signing, store
from pipelines.registry.ledger import Event, Ledger, new_attempt
from tests.aws import EmulatedAccount
from tests.infra.recording import edit
from tests.sample_project import copy_as_forked
from tests.signing_environments import (
    GATES,
    OTHER_COMMIT,
    example_build,
    example_bundle,
    example_files,
    make_key,
    make_signing_environment,
    register,
    with_empty_registry,
)

pytestmark = pytest.mark.slow

MODEL = "diabetes-progression"
Environments = dict[str, EnvironmentDescriptor]


@pytest.fixture(scope="module")
def provisioned(account: EmulatedAccount) -> Environments:
    dev = make_signing_environment("dev")
    staging = make_signing_environment("staging", dev)
    return {"dev": dev, "staging": staging, "prod": make_signing_environment("prod", staging)}


@pytest.fixture
def environments(provisioned: Environments) -> Environments:
    return {name: with_empty_registry(descriptor) for name, descriptor in provisioned.items()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The sample declarations in a new git repository."""
    copy_as_forked(tmp_path)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "start"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)
    return Project(tmp_path)


def changed_files(project: Project) -> list[str]:
    done = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=project.root, check=True, capture_output=True, text=True
    )
    return [line[3:] for line in done.stdout.splitlines()]


def go_live(descriptor: EnvironmentDescriptor, digest: str) -> None:
    event = Event.of(attempt=new_attempt(), action="promotion", result="verified", before=None, to=digest, live=digest)
    Ledger(descriptor, MODEL).append(lambda _: event)


def test_a_release_replaces_what_is_live_and_not_what_main_names(project: Project, environments: Environments) -> None:
    """The two differ after a deployment that was refused or failed."""
    dev = environments["dev"]
    live, refused, good = (register(dev, model=MODEL, seed=seed) for seed in (1, 2, 3))
    go_live(dev, live)
    write_release(project, environments, MODEL, "dev", refused)
    write_release(project, environments, MODEL, "dev", good)
    assert project.release(MODEL, "dev").replaces == live
    path = write_release(project, environments, MODEL, "dev", live)
    assert (project.release(MODEL, "dev").bundle, project.release(MODEL, "dev").replaces) == (live, None)
    before = path.read_bytes()
    assert write_live_release(project, environments, MODEL, "dev").read_bytes() == before
    with pytest.raises(MlopsError, match="prod is not up, so nothing is live there"):
        write_live_release(project, {}, MODEL, "prod")


def test_a_release_changes_one_file_and_names_what_it_replaces(project: Project, environments: Environments) -> None:
    first, second = register(environments["dev"], model=MODEL), register(environments["dev"], model=MODEL, seed=8)
    path = write_release(project, environments, MODEL, "dev", first)
    assert changed_files(project) == [f"models/{MODEL}/releases/dev.yaml"]
    assert path == project.release_file(MODEL, "dev")
    assert (project.release(MODEL, "dev").bundle, project.release(MODEL, "dev").replaces) == (first, None)
    go_live(environments["dev"], first)
    write_release(project, environments, MODEL, "dev", second)
    assert (project.release(MODEL, "dev").bundle, project.release(MODEL, "dev").replaces) == (second, first)
    before = path.read_bytes()
    write_release(project, environments, MODEL, "dev", second)
    assert path.read_bytes() == before
    assert changed_files(project) == [f"models/{MODEL}/releases/dev.yaml"]


def test_a_bundle_cannot_skip_an_environment(project: Project, environments: Environments) -> None:
    digest = register(environments["dev"], model=MODEL)
    write_release(project, environments, MODEL, "staging", digest)
    with pytest.raises(bundles.UnknownBundleError, match="staging does not have the bundle") as caught:
        write_release(project, environments, MODEL, "prod", digest)
    assert caught.value.fix == (f"release it in staging first: mlops release {MODEL} --env staging --bundle {digest}")
    replicate(environments["dev"], environments["staging"], MODEL, digest)
    write_release(project, environments, MODEL, "prod", digest)
    assert project.release(MODEL, "prod").bundle == digest


def test_the_first_release_creates_the_release_file(project: Project, environments: Environments) -> None:
    digest = register(environments["dev"], model=MODEL)
    path = project.release_file(MODEL, "dev")
    for left in path.parent.iterdir():
        left.unlink()
    path.parent.rmdir()
    assert write_release(project, environments, MODEL, "dev", digest) == path
    assert (project.release(MODEL, "dev").bundle, project.release(MODEL, "dev").replaces) == (digest, None)


def test_a_bundle_that_cannot_be_trusted_is_not_released(project: Project, environments: Environments) -> None:
    dev = environments["dev"]
    unknown, unsigned = example_bundle(model=MODEL, seed=1), example_bundle(model=MODEL, seed=2)
    with pytest.raises(bundles.UnknownBundleError, match="has no bundle"):
        write_release(project, environments, MODEL, "dev", unknown.digest)
    bundles.push(dev, unsigned, example_files())
    with pytest.raises(evidence.UnsignedBundleError):
        write_release(project, environments, MODEL, "dev", unsigned.digest)
    tampered = register(dev, model=MODEL, seed=3)
    key = bundles.prefix_of(MODEL, tampered) + "model.onnx"
    boto3.client("s3").put_object(Bucket=dev.registry_bucket, Key=key, Body=b"another model.onnx")
    with pytest.raises(bundles.TamperedBundleError):
        write_release(project, environments, MODEL, "dev", tampered)
    other = register(dev, model="other-model")
    with pytest.raises(bundles.UnknownBundleError):
        write_release(project, environments, MODEL, "dev", other)
    assert changed_files(project) == []


def test_a_bundle_signed_by_another_environment_is_not_released(project: Project, environments: Environments) -> None:
    """The key is trusted, but it is not that of the environment that trains."""
    digest = register(environments["staging"], model=MODEL)
    with pytest.raises(signing.BadSignatureError, match="has the wrong signers: expected only dev, found staging"):
        write_release(project, environments, MODEL, "prod", digest)
    assert changed_files(project) == []


def test_an_unknown_model_or_environment_is_an_error_that_lists_the_known_ones(
    project: Project, environments: Environments
) -> None:
    digest = register(environments["dev"], model=MODEL)
    with pytest.raises(MlopsError, match="unknown environment 'qa'") as caught:
        write_release(project, environments, MODEL, "qa", digest)
    assert caught.value.fix == "use one of the environments: dev, prod, staging"
    with pytest.raises(MlopsError, match="unknown model 'churn'"):
        write_release(project, environments, "churn", "dev", digest)
    with pytest.raises(MlopsError, match="dev is not up") as caught:
        write_release(project, {}, MODEL, "staging", digest)
    assert caught.value.fix == "mlops up --env dev"
    with pytest.raises(MlopsError, match="is not the digest of a bundle"):
        write_release(project, environments, MODEL, "dev", "latest")
    assert changed_files(project) == []


def test_replication_copies_the_bundle_with_its_evidence_and_is_idempotent(environments: Environments) -> None:
    dev, staging = environments["dev"], environments["staging"]
    digest = register(dev, model=MODEL)
    evidence.attest(dev, example_bundle(model=MODEL), GATES, example_build(commit=OTHER_COMMIT, run="run-2"))
    for _ in range(2):
        replicate(dev, staging, MODEL, digest)
    assert evidence.verify_bundle(staging, MODEL, digest) == evidence.verify_bundle(dev, MODEL, digest)
    assert len(evidence.verify_bundle(staging, MODEL, digest).commits) == 2


@pytest.mark.parametrize("writes", [0, 1, 3, 8])
def test_an_interrupted_replication_leaves_no_bundle_and_can_be_repeated(
    environments: Environments, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    dev, staging = environments["dev"], environments["staging"]
    digest = register(dev, model=MODEL)
    put_new, left = store.put_new, iter(range(writes))

    def interrupted(*args: object, **kwargs: object) -> str:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return put_new(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store, "put_new", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replicate(dev, staging, MODEL, digest)
    with pytest.raises(bundles.UnknownBundleError):
        evidence.verify_bundle(staging, MODEL, digest)
    replicate(dev, staging, MODEL, digest)
    assert evidence.verify_bundle(staging, MODEL, digest).digest == digest


def test_replication_verifies_with_the_keys_of_the_receiving_environment(environments: Environments) -> None:
    digest = register(environments["dev"], model=MODEL)
    _, another = make_key()
    staging = environments["staging"].model_copy(update={"trusted_keys": {"dev": another}})
    with pytest.raises(signing.BadSignatureError):
        replicate(environments["dev"], staging, MODEL, digest)
    assert bundles.list_digests(staging, MODEL) == []
    assert store.sizes(staging.registry_bucket, "evidence/", limit=10) == {}, "the evidence is not copied either"
    doubting = environments["dev"].model_copy(update={"trusted_keys": {"dev": another}})
    replicate(doubting, environments["staging"], MODEL, digest)
    assert bundles.list_digests(environments["staging"], MODEL) == [digest]


def test_a_bundle_tampered_with_after_its_replication_is_refused(
    environments: Environments,
) -> None:
    dev, staging = environments["dev"], environments["staging"]
    digest = register(dev, model=MODEL)
    replicate(dev, staging, MODEL, digest)
    key = bundles.prefix_of(MODEL, digest) + "card.md"
    boto3.client("s3").put_object(Bucket=staging.registry_bucket, Key=key, Body=b"content of card.mD")
    with pytest.raises(bundles.TamperedBundleError, match=r"card\.md was changed"):
        replicate(dev, staging, MODEL, digest)


def test_images_go_to_the_next_environment_only(project: Project) -> None:
    one, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert next_pins(project, "dev") == []
    pin_images(project, "dev", Images(training=one, serving=one))
    assert next_pins(project, "dev") == [(Images(training=one, serving=one), "staging")], "monitors need the other"
    pin_images(project, "staging", Images(training=one, serving=one))
    assert next_pins(project, "dev") == []
    assert next_pins(project, "staging") == [(Images(training=one, serving=one), "prod")]
    pin_images(project, "dev", Images(serving=other))
    assert next_pins(project, "dev") == [(Images(serving=other), "staging")]
    assert next_pins(project, "prod") == []


def test_an_environment_that_monitors_no_models_needs_no_training_image(project: Project) -> None:
    one = "sha256:" + "1" * 64
    edit(project.stack_file("staging"), "config", "mlops:environment", "monitoring", value={"models": False})
    pin_images(project, "dev", Images(training=one, serving=one))
    assert next_pins(project, "dev") == [(Images(serving=one), "staging")]
