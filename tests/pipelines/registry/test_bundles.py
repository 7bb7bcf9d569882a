from __future__ import annotations

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.bundle import FILES, MANIFEST, Bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import bundles, store
from tests.aws import EmulatedAccount, make_environment
from tests.signing_environments import MODEL, example_bundle, example_files, with_empty_registry


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    return with_empty_registry(environment)


def put(descriptor: EnvironmentDescriptor, digest: str, name: str, content: bytes) -> None:
    """Write an object without the product's checks, like an attacker."""
    key = bundles.prefix_of(MODEL, digest) + name
    boto3.client("s3").put_object(Bucket=descriptor.registry_bucket, Key=key, Body=content)


def remove(descriptor: EnvironmentDescriptor, digest: str, name: str) -> None:
    key = bundles.prefix_of(MODEL, digest) + name
    boto3.client("s3").delete_object(Bucket=descriptor.registry_bucket, Key=key)


def test_a_pushed_bundle_is_fetched_unchanged(dev: EnvironmentDescriptor) -> None:
    manifest, files = example_bundle(), example_files()
    assert not bundles.exists(dev, MODEL, manifest.digest)
    digest = bundles.push(dev, manifest, files)
    assert digest == manifest.digest
    assert bundles.exists(dev, MODEL, digest)
    assert bundles.list_digests(dev, MODEL) == [digest]
    fetched = bundles.fetch(dev, MODEL, digest)
    assert fetched.manifest == manifest
    assert fetched.files == files
    assert dict(bundles.fetch(dev, MODEL, digest, ["card.md"]).files) == {"card.md": files["card.md"]}


def test_pushing_the_same_bundle_again_changes_nothing(dev: EnvironmentDescriptor) -> None:
    digest = bundles.push(dev, example_bundle(), example_files())
    assert bundles.push(dev, example_bundle(), example_files()) == digest


def test_an_interrupted_push_leaves_no_bundle_and_the_next_push_completes_it(dev: EnvironmentDescriptor) -> None:
    manifest, files = example_bundle(), example_files()
    put(dev, manifest.digest, "model.onnx", files["model.onnx"])
    with pytest.raises(bundles.UnknownBundleError, match="has no bundle"):
        bundles.fetch(dev, MODEL, manifest.digest)
    bundles.push(dev, manifest, files)
    assert bundles.fetch(dev, MODEL, manifest.digest).files == files


def test_a_push_over_a_different_file_is_rejected(dev: EnvironmentDescriptor) -> None:
    manifest = example_bundle()
    put(dev, manifest.digest, "model.onnx", b"another model, and a much longer one")
    with pytest.raises(bundles.TamperedBundleError, match=r"model\.onnx was changed"):
        bundles.push(dev, manifest, example_files())
    assert not bundles.exists(dev, MODEL, manifest.digest)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_changed_byte_is_reported_with_the_file_and_both_digests(dev: EnvironmentDescriptor, name: str) -> None:
    manifest, files = example_bundle(), example_files()
    digest = bundles.push(dev, manifest, files)
    content = bytearray({**files, MANIFEST: manifest.manifest()}[name])
    content[len(content) // 2] ^= 1
    put(dev, digest, name, bytes(content))
    with pytest.raises(bundles.TamperedBundleError) as caught:
        bundles.fetch(dev, MODEL, digest)
    expected = digest if name == MANIFEST else manifest.files[name].sha256
    assert f"/{name} was changed: expected {expected}, found sha256:" in caught.value.what


def test_a_bundle_with_a_missing_file_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = bundles.push(dev, example_bundle(), example_files())
    remove(dev, digest, "golden.json")
    with pytest.raises(bundles.TamperedBundleError, match=r"lacks golden\.json"):
        bundles.fetch(dev, MODEL, digest, ["model.onnx"])


def test_a_bundle_with_an_added_file_is_rejected(dev: EnvironmentDescriptor) -> None:
    digest = bundles.push(dev, example_bundle(), example_files())
    put(dev, digest, "model.pkl", b"cos\nsystem\n")
    with pytest.raises(bundles.TamperedBundleError, match=r"a file that its manifest does not list: .*/model\.pkl"):
        bundles.fetch(dev, MODEL, digest, ["model.onnx"])


def test_a_file_that_grew_is_rejected_before_it_is_read(dev: EnvironmentDescriptor) -> None:
    files = example_files()
    digest = bundles.push(dev, example_bundle(), files)
    put(dev, digest, "card.md", files["card.md"] + b" and more")
    with pytest.raises(bundles.TamperedBundleError, match=r"card\.md was changed: expected 18 bytes .*, found 27"):
        bundles.fetch(dev, MODEL, digest)


def test_a_manifest_that_is_not_in_canonical_form_is_rejected(dev: EnvironmentDescriptor) -> None:
    from pipelines.declarations.digests import digest_of_bytes

    spaced = example_bundle().model_dump_json(indent=1).encode()
    put(dev, digest_of_bytes(spaced), MANIFEST, spaced)
    with pytest.raises(bundles.TamperedBundleError, match="not in canonical form"):
        bundles.fetch(dev, MODEL, digest_of_bytes(spaced))


def test_a_bundle_of_another_model_is_rejected(dev: EnvironmentDescriptor) -> None:
    manifest = example_bundle(model="other")
    put(dev, manifest.digest, MANIFEST, manifest.manifest())
    with pytest.raises(bundles.TamperedBundleError, match="belongs to another model: expected price, found other"):
        bundles.fetch(dev, MODEL, manifest.digest)


def test_a_manifest_larger_than_the_limit_is_not_read(dev: EnvironmentDescriptor) -> None:
    digest = example_bundle().digest
    put(dev, digest, MANIFEST, b" " * (bundles.LARGEST_MANIFEST + 1))
    with pytest.raises(bundles.TamperedBundleError, match="expected at most 65536"):
        bundles.fetch(dev, MODEL, digest)


@pytest.mark.parametrize("digest", ["latest", "sha256:abc", "sha256:" + "A" * 64, "../../etc/passwd", ""])
def test_a_malformed_digest_never_becomes_part_of_a_key(dev: EnvironmentDescriptor, digest: str) -> None:
    with pytest.raises(MlopsError, match="is not the digest of a bundle"):
        bundles.fetch(dev, MODEL, digest)


def test_files_that_do_not_match_the_manifest_are_not_pushed(dev: EnvironmentDescriptor) -> None:
    with pytest.raises(MlopsError, match=r"card\.md of price does not match the manifest: .* found 5 bytes"):
        bundles.push(dev, example_bundle(), example_files(card_md=b"other"))
    with pytest.raises(MlopsError, match="do not match its manifest"):
        bundles.push(dev, example_bundle(), {**example_files(), "model.pkl": b""})
    few = {"model.onnx": b"content"}
    with pytest.raises(MlopsError, match=r"the bundle of price lacks baseline\.json"):
        bundles.push(dev, example_bundle(few), few)
    assert bundles.list_digests(dev, MODEL) == []


@pytest.mark.parametrize("number", [2**53, float(2**53), float("nan")])
def test_a_parameter_that_json_cannot_represent_exactly_is_rejected(dev: EnvironmentDescriptor, number: float) -> None:
    with pytest.raises(MlopsError, match="cannot be written as canonical JSON"):
        bundles.push(dev, example_bundle(parameters={"big": number}), example_files())


def test_an_error_names_the_missing_registry_bucket(dev: EnvironmentDescriptor) -> None:
    nowhere = dev.model_copy(update={"registry_bucket": "mlops-nowhere"})
    with pytest.raises(store.NoBucketError, match="the bucket mlops-nowhere does not exist"):
        bundles.fetch(nowhere, MODEL, example_bundle().digest)


def test_a_write_is_rejected_if_the_object_has_changed_since_the_read(dev: EnvironmentDescriptor) -> None:
    bucket = dev.registry_bucket
    first = store.put_new(bucket, "ledger/x", b"one")
    second = store.replace(bucket, "ledger/x", b"two", first)
    with pytest.raises(store.PreconditionFailedError):
        store.replace(bucket, "ledger/x", b"three", first)
    with pytest.raises(store.PreconditionFailedError):
        store.put_new(bucket, "ledger/x", b"four")
    found = store.get(bucket, "ledger/x", limit=3)
    assert (found.content, found.etag) == (b"two", second)
    with pytest.raises(store.TooLargeError, match="is too large: expected at most 2 bytes, found 3"):
        store.get(bucket, "ledger/x", limit=2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | st.floats(-1e15, 1e15),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_the_digest_of_a_manifest_depends_only_on_its_values(
    parameters: dict[str, object],
) -> None:
    manifest = example_bundle(parameters=parameters)
    backwards = example_bundle(dict(reversed(example_files().items())), parameters=dict(reversed(parameters.items())))
    assert backwards.digest == manifest.digest
    read = Bundle.model_validate_json(manifest.manifest())
    assert read.manifest() == manifest.manifest()
    assert example_bundle(parameters=parameters, seed=8).digest != manifest.digest
