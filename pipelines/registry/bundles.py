"""Write, list and read bundles. Writes are atomic, and every read is verified against the digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.bundle import FILES, MANIFEST, Bundle
from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.documents import first_problem
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import checked_name
from pipelines.registry import store

LARGEST_MANIFEST = 64 << 10
"""Size limit of `bundle.json`, in bytes."""

LARGEST_FILE = 512 << 20
"""Size limit of any other file of a bundle, in bytes."""

MOST_FILES = 32

MOST_BUNDLES = 100_000


class UnknownBundleError(MlopsError):
    """The registry does not have the bundle."""


class TamperedBundleError(MlopsError):
    """The registry's content does not match the digest of the bundle."""


@dataclass(frozen=True)
class FetchedBundle:
    """Bundle whose content matches its digest.

    Attributes:
        digest: id of the bundle.
        manifest: its `bundle.json`.
        files: name → content of the requested files.
    """

    digest: str
    manifest: Bundle
    files: Mapping[str, bytes]


def prefix_of(model: str, digest: str) -> str:
    """Return the key prefix of a bundle's files in a registry bucket, with a trailing slash.

    Raises:
        MlopsError: the name or the digest is malformed.
    """
    return f"bundles/{checked_name(model)}/sha256/{hex_of(digest)}/"


def hex_of(digest: str) -> str:
    """Return the 64 hexadecimal digits of a digest.

    Raises:
        MlopsError: the digest is malformed.
    """
    try:
        return _DIGEST.validate_python(digest).removeprefix("sha256:")
    except ValidationError:
        raise MlopsError(
            f"{digest!r} is not the digest of a bundle", fix="write sha256: and 64 hexadecimal digits"
        ) from None


_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)


def push(descriptor: EnvironmentDescriptor, manifest: Bundle, files: Mapping[str, bytes]) -> str:
    """Write a bundle to the environment's registry and return its digest.

    The manifest is written last, so an interrupted push leaves no bundle and the next push completes it. Pushing a
    bundle again changes nothing.

    Raises:
        TamperedBundleError: the registry already has a different file under one of the keys.
        MlopsError: `files` does not match the manifest; or the write failed.
    """
    _check_files(manifest, files)
    client, bucket, prefix = (
        store.s3(),
        descriptor.registry_bucket,
        prefix_of(manifest.model, manifest.digest),
    )
    for name, content in (*sorted(files.items()), (MANIFEST, manifest.manifest())):
        try:
            store.put_new(bucket, prefix + name, content, client=client)
        except store.PreconditionFailedError:
            try:
                found = digest_of_bytes(store.get(bucket, prefix + name, limit=len(content), client=client).content)
            except store.TooLargeError:
                found = "a larger file"
            if found != digest_of_bytes(content):
                raise _tampered(bucket, prefix + name, digest_of_bytes(content), found) from None
    return manifest.digest


def _check_files(manifest: Bundle, files: Mapping[str, bytes]) -> None:
    if set(files) != set(manifest.files):
        raise MlopsError(
            f"the files of the bundle of {manifest.model} do not match its manifest: expected "
            f"{sorted(manifest.files)}, found {sorted(files)}"
        )
    for name in sorted(set(FILES) - set(files)):
        raise MlopsError(f"the bundle of {manifest.model} lacks {name}: expected the files {', '.join(FILES)}")
    if MANIFEST in files or len(files) >= MOST_FILES:
        raise MlopsError(
            f"the bundle of {manifest.model} has wrong files: expected fewer than {MOST_FILES} besides {MANIFEST}, "
            f"found {len(files)}"
        )
    for name, content in files.items():
        found, expected = digest_of_bytes(content), manifest.files[name]
        if found != expected.sha256 or len(content) != expected.size or len(content) > LARGEST_FILE:
            raise MlopsError(
                f"{name} of {manifest.model} does not match the manifest: expected {expected.size} bytes (at most "
                f"{LARGEST_FILE}) and {expected.sha256}, found {len(content)} bytes and {found}"
            )
    try:
        Bundle.model_validate_json(manifest.manifest()).manifest()
    except ValueError as error:
        raise MlopsError(
            f"the parameters of {manifest.model} cannot be written as canonical JSON: {error}",
            fix="write numbers beyond 2**53 in training.parameters as text",
        ) from None
    if len(manifest.manifest()) > LARGEST_MANIFEST:
        raise MlopsError(
            f"{MANIFEST} of {manifest.model} is too large: expected at most {LARGEST_MANIFEST} bytes, "
            f"found {len(manifest.manifest())}",
            fix="shorten training.parameters in model.yaml",
        )


def exists(descriptor: EnvironmentDescriptor, model: str, digest: str) -> bool:
    """Return True if the registry has the bundle's manifest. The content is not verified; `fetch` does that.

    Raises:
        MlopsError: the registry cannot be read.
    """
    try:
        store.get(descriptor.registry_bucket, prefix_of(model, digest) + MANIFEST, limit=LARGEST_MANIFEST)
    except store.NotFoundError:
        return False
    return True


def read_manifest(descriptor: EnvironmentDescriptor, model: str, digest: str) -> Bundle:
    """Read the manifest of a bundle and verify it against the digest. The other files are not looked at.

    Raises:
        UnknownBundleError: the registry does not have the bundle.
        TamperedBundleError: the manifest is changed, or belongs to another model.
        MlopsError: the registry cannot be read.
    """
    return _manifest(store.s3(), descriptor.registry_bucket, prefix_of(model, digest), model, digest)


def list_digests(descriptor: EnvironmentDescriptor, model: str) -> list[str]:
    """List the digests of a model's bundles, sorted, including incomplete bundles.

    Raises:
        MlopsError: the registry cannot be read.
    """
    prefix = f"bundles/{checked_name(model)}/sha256/"
    folders = store.folders(descriptor.registry_bucket, prefix, limit=MOST_BUNDLES)
    return [f"sha256:{folder}" for folder in folders]


def fetch(
    descriptor: EnvironmentDescriptor, model: str, digest: str, names: Collection[str] | None = None
) -> FetchedBundle:
    """Read a bundle and verify it against its digest.

    Args:
        descriptor: environment whose registry to read.
        model: name of the model.
        digest: id of the bundle.
        names: the files to read and hash, or None for all. The presence and size of all files are always checked.

    Raises:
        UnknownBundleError: the registry does not have the bundle.
        TamperedBundleError: a file is changed, missing or added; or the bundle belongs to another model.
        MlopsError: the registry cannot be read, or `names` has a file that is not in the bundle.
    """
    client, bucket, prefix = store.s3(), descriptor.registry_bucket, prefix_of(model, digest)
    manifest = _manifest(client, bucket, prefix, model, digest)
    present = _listing(client, bucket, prefix)
    expected = {name: file.size for name, file in manifest.files.items()}
    for name in sorted(set(expected) - set(present)):
        raise TamperedBundleError(
            f"the bundle {digest} of {model} lacks {name}: s3://{bucket}/{prefix}{name} does not exist", fix=_AGAIN
        )
    for name in sorted(set(present) - set(expected) - {MANIFEST}):
        raise TamperedBundleError(
            f"the bundle {digest} of {model} has a file that its manifest does not list: s3://{bucket}/{prefix}{name}",
            fix=_AGAIN,
        )
    wanted = sorted(manifest.files if names is None else names)
    for name in (name for name in wanted if name not in manifest.files):
        raise MlopsError(
            f"the bundle {digest} of {model} has no file {name!r}: expected one of {sorted(manifest.files)}"
        )
    for name, size in expected.items():
        if present[name] != size or size > LARGEST_FILE:
            raise TamperedBundleError(
                f"s3://{bucket}/{prefix}{name} was changed: expected {size} bytes (at most {LARGEST_FILE}), "
                f"found {present[name]}",
                fix=_AGAIN,
            )
    files = {}
    for name in wanted:
        try:
            content = store.get(bucket, prefix + name, limit=expected[name], client=client).content
        except store.TooLargeError as error:
            raise TamperedBundleError(error.what, fix=_AGAIN) from None
        if digest_of_bytes(content) != manifest.files[name].sha256:
            raise _tampered(bucket, prefix + name, manifest.files[name].sha256, digest_of_bytes(content))
        files[name] = content
    return FetchedBundle(digest, manifest, files)


_AGAIN = "do not use the bundle; train again to write a new one, and find out who changed this one"


def _tampered(bucket: str, key: str, expected: str, found: str) -> TamperedBundleError:
    return TamperedBundleError(f"s3://{bucket}/{key} was changed: expected {expected}, found {found}", fix=_AGAIN)


def _manifest(client: Any, bucket: str, prefix: str, model: str, digest: str) -> Bundle:
    try:
        content = store.get(bucket, prefix + MANIFEST, limit=LARGEST_MANIFEST, client=client).content
    except store.NotFoundError:
        raise UnknownBundleError(
            f"the registry {bucket} has no bundle {digest} of {model}",
            fix=f"copy the digest from the training run; `mlops train {model}` makes a new bundle",
        ) from None
    except store.TooLargeError as error:
        raise TamperedBundleError(error.what, fix=_AGAIN) from None
    if digest_of_bytes(content) != digest:
        raise _tampered(bucket, prefix + MANIFEST, digest, digest_of_bytes(content))
    try:
        manifest = Bundle.model_validate_json(content)
        canonical = manifest.manifest()
    except ValueError as error:
        raise TamperedBundleError(
            f"s3://{bucket}/{prefix}{MANIFEST} is not a manifest: {first_problem(error)}"
        ) from None
    if canonical != content:
        raise TamperedBundleError(
            f"s3://{bucket}/{prefix}{MANIFEST} is not in canonical form (RFC 8785): expected {manifest.digest}, "
            f"found {digest}"
        )
    if manifest.model != model:
        raise TamperedBundleError(
            f"the bundle {digest} belongs to another model: expected {model}, found {manifest.model}"
        )
    return manifest


def _listing(client: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Return file name → size in bytes under a prefix."""
    try:
        sizes = store.sizes(bucket, prefix, limit=MOST_FILES, client=client)
    except store.TooLargeError as error:
        raise TamperedBundleError(error.what, fix=_AGAIN) from None
    return {key.removeprefix(prefix): size for key, size in sizes.items()}
