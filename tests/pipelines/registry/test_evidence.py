from __future__ import annotations

import boto3
import pytest

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles, evidence, runs, signing
from tests.aws import EmulatedAccount
from tests.signing_environments import (
    COMMIT,
    GATES,
    MODEL,
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


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    return with_empty_registry(environment)


def stored(descriptor: EnvironmentDescriptor, digest: str, name: str) -> bytes:
    key = evidence.prefix_of(MODEL, digest) + name
    body: bytes = boto3.client("s3").get_object(Bucket=descriptor.registry_bucket, Key=key)["Body"].read()
    return body


def put(descriptor: EnvironmentDescriptor, digest: str, name: str, content: bytes) -> None:
    key = evidence.prefix_of(MODEL, digest) + name
    boto3.client("s3").put_object(Bucket=descriptor.registry_bucket, Key=key, Body=content)


def state(descriptor: EnvironmentDescriptor, digest: str, name: str, kind: str, predicate: dict[str, object]) -> None:
    """Sign a statement with the environment's key, without the product's checks."""
    statement = signing.Statement.about(MODEL, digest, kind, predicate)
    put(descriptor, digest, name, signing.sign(statement, descriptor.signing_key, descriptor.name).to_bytes())


def test_a_registered_bundle_verifies_with_its_commit_its_gates_and_its_signer(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    verified = evidence.verify_bundle(dev, MODEL, digest, signer="dev")
    assert verified.files == example_files()
    assert verified.signer == "dev"
    assert verified.commits == (COMMIT,)
    assert verified.provenance.policy == verified.evaluated.gates == GATES
    assert verified.provenance.run.builder.id == f"dev/train-price@{example_bundle().image}"
    assert verified.evaluated.evaluation == digest_of_bytes(b"content of evaluation.json")


def test_the_largest_statement_fits_the_kms_limit() -> None:
    manifest = example_bundle(model="m" * 40)
    manifest = manifest.model_copy(
        update={
            "dataset": manifest.dataset.model_copy(
                update={"dataset": "d" * 40, "table": "t" * 100, "snapshot": "9" * 19, "rows": 10**15}
            )
        }
    )
    predicate = evidence.provenance_of(manifest, GATES, example_build("e" * 40, commit="a" * 64, run="r" * 63))
    value = predicate.model_dump(mode="json", by_alias=True)
    payload = signing.Statement.about(manifest.model, manifest.digest, evidence.PROVENANCE, value).payload()
    assert len(signing.encode(signing.PAYLOAD, payload)) < signing.LARGEST_MESSAGE


@pytest.mark.parametrize("name", ["provenance.dsse.json", "evaluation.dsse.json"])
def test_a_bundle_without_evidence_is_rejected(dev: EnvironmentDescriptor, name: str) -> None:
    digest = register(dev)
    key = evidence.prefix_of(MODEL, digest) + name
    boto3.client("s3").delete_object(Bucket=dev.registry_bucket, Key=key)
    with pytest.raises(evidence.UnsignedBundleError, match=f"has no signed {name.split('.')[0]}"):
        evidence.verify_bundle(dev, MODEL, digest)


def test_the_next_run_completes_the_evidence_of_an_interrupted_run(dev: EnvironmentDescriptor) -> None:
    bundles.push(dev, example_bundle(), example_files())
    with pytest.raises(evidence.UnsignedBundleError):
        evidence.verify_bundle(dev, MODEL, example_bundle().digest)
    assert evidence.verify_bundle(dev, MODEL, register(dev)).signer == "dev"


@pytest.mark.parametrize("name", ["provenance.dsse.json", "evaluation.dsse.json"])
def test_evidence_about_another_bundle_is_rejected(dev: EnvironmentDescriptor, name: str) -> None:
    digest, other = register(dev), register(dev, seed=8)
    put(dev, digest, name, stored(dev, other, name))
    with pytest.raises(signing.BadSignatureError, match=f"is about another subject: expected {digest}, found {other}"):
        evidence.verify_bundle(dev, MODEL, digest)


def test_evidence_of_the_wrong_kind_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    put(dev, digest, "provenance.dsse.json", stored(dev, digest, "evaluation.dsse.json"))
    with pytest.raises(signing.BadSignatureError, match="expected https://slsa"):
        evidence.verify_bundle(dev, MODEL, digest)


def test_evidence_signed_by_an_untrusted_key_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    _, another = make_key()
    reader = dev.model_copy(update={"trusted_keys": {"dev": another}})
    with pytest.raises(signing.BadSignatureError, match="no valid signature by a trusted key"):
        evidence.verify_bundle(reader, MODEL, digest)


def test_a_trusted_environment_that_does_not_train_cannot_vouch_for_a_bundle(dev: EnvironmentDescriptor) -> None:
    arn, pem = make_key()
    changes = {"name": "staging", "signing_key": arn, "trusted_keys": {**dev.trusted_keys, "staging": pem}}
    staging = dev.model_copy(update=changes)
    digest = register(staging)
    assert evidence.verify_bundle(staging, MODEL, digest).signer == "staging"
    with pytest.raises(signing.BadSignatureError, match="has the wrong signers: expected only dev, found staging"):
        evidence.verify_bundle(staging, MODEL, digest, signer="dev")


def false_evaluation() -> dict[str, object]:
    """Make an evaluation that differs from the one of the example bundle."""
    manifest, better = example_bundle(), digest_of_bytes(b"better figures")
    said = evidence.Evaluated(evaluation=better, gates=GATES, contract=manifest.contract, dataset=manifest.dataset)
    return said.model_dump(mode="json")


def test_a_different_existing_evaluation_stops_the_run(dev: EnvironmentDescriptor) -> None:
    state(dev, example_bundle().digest, "evaluation.dsse.json", evidence.EVALUATION, false_evaluation())
    with pytest.raises(signing.BadSignatureError, match="is another evaluation"):
        register(dev)


def test_signed_evidence_that_contradicts_the_bundle_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    state(dev, digest, "evaluation.dsse.json", evidence.EVALUATION, false_evaluation())
    with pytest.raises(signing.BadSignatureError, match="does not match the bundle: evaluation"):
        evidence.verify_bundle(dev, MODEL, digest)


def test_signed_evidence_with_another_predicate_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    state(dev, digest, "provenance.dsse.json", evidence.PROVENANCE, {"buildDefinition": "trust me"})
    with pytest.raises(signing.BadSignatureError, match="is not a valid provenance"):
        evidence.verify_bundle(dev, MODEL, digest)


def test_a_bundle_rebuilt_from_another_commit_lists_both_commits(dev: EnvironmentDescriptor) -> None:
    digest = register(dev)
    first = stored(dev, digest, "provenance.dsse.json")
    for run in ("run-2", "run-3"):
        evidence.attest(dev, example_bundle(), GATES, example_build(commit=OTHER_COMMIT, run=run))
    assert evidence.verify_bundle(dev, MODEL, digest).commits == (COMMIT, OTHER_COMMIT)
    assert stored(dev, digest, "provenance.dsse.json") == first


def test_the_evidence_of_a_bundle_that_is_made_again_and_again_verifies(dev: EnvironmentDescriptor) -> None:
    """A schedule trains the same content from a main that moves; and junk beside the evidence is no evidence."""
    digest = register(dev)
    one = stored(dev, digest, "provenance.dsse.json")
    for number in range(70):
        put(dev, digest, f"provenance-{number:012x}.dsse.json", one)
    put(dev, digest, "provenance-of-junk.dsse.json", b"{}")
    evidence.attest(dev, example_bundle(), GATES, example_build(commit=OTHER_COMMIT, run="run-72"))
    commits = evidence.verify_bundle(dev, MODEL, digest).commits
    assert (commits[0], len(commits), set(commits)) == (COMMIT, 72, {COMMIT, OTHER_COMMIT})
    assert evidence.verify_bundle(dev, MODEL, digest, all_runs=False).commits == (COMMIT,)
    assert set(evidence.digests_of_statements(dev, MODEL, digest)) == {"provenance", "evaluation"}


def test_existing_evidence_that_does_not_verify_stops_the_run(dev: EnvironmentDescriptor) -> None:
    put(dev, example_bundle().digest, "provenance.dsse.json", b"{}")
    with pytest.raises(signing.BadSignatureError, match="is not a DSSE envelope"):
        register(dev)


@pytest.mark.parametrize("change", [{"commit": "main"}, {"run": "../x"}, {"started": "yesterday"}])
def test_a_malformed_run_signs_nothing(dev: EnvironmentDescriptor, change: dict[str, str]) -> None:
    with pytest.raises(MlopsError, match="is malformed"):
        evidence.attest(dev, example_bundle(), GATES, example_build(**change))


def test_a_run_records_one_bundle(dev: EnvironmentDescriptor) -> None:
    digest, other = example_bundle().digest, example_bundle(seed=8).digest
    runs.record_run(dev, MODEL, "12345", digest, "1")
    runs.record_run(dev, MODEL, "12345", digest, "1")
    assert runs.read_run(dev, MODEL, "12345") == digest
    with pytest.raises(MlopsError, match=f"already has another bundle: expected {digest}, found {other}"):
        runs.record_run(dev, MODEL, "12345", other, "1")
    with pytest.raises(MlopsError, match="produced no bundle"):
        runs.read_run(dev, MODEL, "12346")
    with pytest.raises(MlopsError, match="is not a valid run id"):
        runs.read_run(dev, MODEL, "../12345")


def test_the_snapshots_that_a_model_was_trained_on_are_known(dev: EnvironmentDescriptor) -> None:
    assert not runs.has_run(dev, MODEL)
    runs.record_run(dev, MODEL, "12345", example_bundle().digest, "77")
    assert runs.has_run(dev, MODEL)
    assert not runs.has_run(dev, f"{MODEL}-2")
    assert [runs.is_trained(dev, MODEL, snapshot) for snapshot in ("77", "78")] == [True, False]
