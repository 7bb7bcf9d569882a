"""Write, find and read bundles. A bundle is there wholly or not at all, and is never read without being verified."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.declarations.bundle import FILES, MANIFEST, Bundle
from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.registry import store

LARGEST_MANIFEST = 64 << 10
"""Bytes of `bundle.json`."""

LARGEST_FILE = 512 << 20
"""Bytes of any other file of a bundle."""

MOST_FILES = 32

MOST_BUNDLES = 100_000


class UnknownBundleError(MlopsError):
    """The registry has no such bundle."""


class TamperedBundleError(MlopsError):
    """What the registry holds under a digest is not what the digest says."""


@dataclass(frozen=True)
class FetchedBundle:
    """A bundle whose content was checked against its digest.

    Attributes:
        digest: its id.
        manifest: its `bundle.json`.
        files: name → content, of the files that were asked for.
    """

    digest: str
    manifest: Bundle
    files: Mapping[str, bytes]


def prefix_of(model: str, digest: str) -> str:
    """Where in a registry bucket a bundle's files lie; ends in a slash.

    Raises:
        MlopsError: the name or the digest is not well formed.
    """
    return f"bundles/{checked_name(model)}/sha256/{hex_of(digest)}/"


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a digest.

    Raises:
        MlopsError: it is not a digest.
    """
    try:
        return _DIGEST.validate_python(digest).removeprefix("sha256:")
    except ValidationError:
        raise MlopsError(
            f"{digest!r} is not the digest of a bundle", fix="write sha256: and its 64 hexadecimal digits"
        ) from None


def checked_name(model: str) -> str:
    """`model` itself, if it can be a model's name.

    Raises:
        MlopsError: it can not, and must not become part of a key.
    """
    try:
        return _NAME.validate_python(model)
    except ValidationError:
        raise MlopsError(
            f"{model!r} is not a model's name", fix="use lower-case letters, digits and hyphens, 2 to 40 of them"
        ) from None


_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


def push(descriptor: EnvironmentDescriptor, manifest: Bundle, files: Mapping[str, bytes]) -> str:
    """Write a bundle into the environment's registry; its digest.

    The manifest is written last, so a push that was interrupted leaves no bundle, and the next one finishes it.
    Pushing the same bundle again changes nothing.

    Raises:
        TamperedBundleError: the registry holds another file in the place of one of these.
        MlopsError: `files` are not those that the manifest names; or the write failed.
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
            f"the manifest of {manifest.model} names {sorted(manifest.files)}; the files given are {sorted(files)}"
        )
    for name in sorted(set(FILES) - set(files)):
        raise MlopsError(f"a bundle has the files {', '.join(FILES)}; {name} of {manifest.model} is missing")
    if MANIFEST in files or len(files) >= MOST_FILES:
        raise MlopsError(f"a bundle has fewer than {MOST_FILES} files, and {MANIFEST} is not one of them")
    for name, content in files.items():
        found, expected = digest_of_bytes(content), manifest.files[name]
        if found != expected.sha256 or len(content) != expected.size or len(content) > LARGEST_FILE:
            raise MlopsError(
                f"{name} has {len(content)} bytes and the digest {found}; "
                f"the manifest says {expected.size} bytes (at most {LARGEST_FILE}) and {expected.sha256}"
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
            f"{MANIFEST} of {manifest.model} has {len(manifest.manifest())} bytes; expected at most {LARGEST_MANIFEST}",
            fix="shorten training.parameters in model.yaml",
        )


def exists(descriptor: EnvironmentDescriptor, model: str, digest: str) -> bool:
    """Whether the registry has the bundle's manifest. Says nothing of its content: `fetch` does.

    Raises:
        MlopsError: the registry cannot be read.
    """
    try:
        store.get(descriptor.registry_bucket, prefix_of(model, digest) + MANIFEST, limit=LARGEST_MANIFEST)
    except store.NotFoundError:
        return False
    return True


def list_digests(descriptor: EnvironmentDescriptor, model: str) -> list[str]:
    """The digests under which the registry has anything for a model, in order of the digest.

    Raises:
        MlopsError: the registry cannot be read.
    """
    prefix = f"bundles/{checked_name(model)}/sha256/"
    folders = store.folders(descriptor.registry_bucket, prefix, limit=MOST_BUNDLES)
    return [f"sha256:{folder}" for folder in folders]


def fetch(
    descriptor: EnvironmentDescriptor, model: str, digest: str, names: Collection[str] | None = None
) -> FetchedBundle:
    """Read a bundle and check that it is exactly what its digest says.

    Args:
        descriptor: the environment whose registry is read.
        model: the model's name.
        digest: the bundle's id.
        names: the files wanted, or None for all. Only these are read and re-hashed; that no file is missing, added
            or of another size is checked of all.

    Raises:
        UnknownBundleError: the registry has no such bundle.
        TamperedBundleError: a file was changed, is missing, or was added; or the bundle is of another model.
        MlopsError: the registry cannot be read, or `names` asks for a file that bundles do not have.
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
            f"the bundle {digest} of {model} holds {name}, which its manifest does not name: "
            f"s3://{bucket}/{prefix}{name}",
            fix=_AGAIN,
        )
    wanted = sorted(manifest.files if names is None else names)
    for name in (name for name in wanted if name not in manifest.files):
        raise MlopsError(f"the bundle {digest} of {model} has no file {name!r}; it has {sorted(manifest.files)}")
    for name, size in expected.items():
        if present[name] != size or size > LARGEST_FILE:
            raise TamperedBundleError(
                f"s3://{bucket}/{prefix}{name} has {present[name]} bytes; expected {size} (at most {LARGEST_FILE})",
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


_AGAIN = "do not use it; train again, which writes a new bundle, and find out who wrote here"


def _tampered(bucket: str, key: str, expected: str, found: str) -> TamperedBundleError:
    return TamperedBundleError(f"s3://{bucket}/{key} was changed: expected {expected}, found {found}", fix=_AGAIN)


def _manifest(client: Any, bucket: str, prefix: str, model: str, digest: str) -> Bundle:
    try:
        content = store.get(bucket, prefix + MANIFEST, limit=LARGEST_MANIFEST, client=client).content
    except store.NotFoundError:
        raise UnknownBundleError(
            f"the registry {bucket} has no bundle {digest} of {model}",
            fix=f"copy the digest from the training run that made it; `mlops train {model}` makes one",
        ) from None
    except store.TooLargeError as error:
        raise TamperedBundleError(error.what, fix=_AGAIN) from None
    if digest_of_bytes(content) != digest:
        raise _tampered(bucket, prefix + MANIFEST, digest, digest_of_bytes(content))
    try:
        manifest = Bundle.model_validate_json(content)
        canonical = manifest.manifest()
    except ValueError as error:
        raise TamperedBundleError(f"s3://{bucket}/{prefix}{MANIFEST} is not a manifest: {error}") from None
    if canonical != content:
        raise TamperedBundleError(
            f"s3://{bucket}/{prefix}{MANIFEST} is not in canonical form (RFC 8785): expected {manifest.digest}, "
            f"found {digest}"
        )
    if manifest.model != model:
        raise TamperedBundleError(f"the bundle {digest} is of the model {manifest.model}, not of {model}")
    return manifest


def _listing(client: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Name within the prefix → size in bytes."""
    try:
        sizes = store.sizes(bucket, prefix, limit=MOST_FILES, client=client)
    except store.TooLargeError as error:
        raise TamperedBundleError(error.what, fix=_AGAIN) from None
    return {key.removeprefix(prefix): size for key, size in sizes.items()}
