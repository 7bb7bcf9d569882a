"""What an image is made of, read from its manifest.

Source: OCI image specification 1.1, image manifest and image index; the Docker formats before it say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.declarations.digests import Digest, digest_of_bytes
from pipelines.declarations.errors import MlopsError

LARGEST_MANIFEST = 4 << 20
"""Bytes; ECR takes no larger one."""

LARGEST_BLOB = 10 << 30
"""Bytes: what fits on the disk of the machine that copies."""

MOST_LAYERS = 500
MOST_CHILDREN = 100

_IMAGES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MEDIA_TYPES = (*_IMAGES, *_INDEXES)
"""Of the manifests that are understood."""


@dataclass(frozen=True)
class Blob:
    """Content that a manifest names: a layer, or the configuration.

    Attributes:
        digest: `sha256:…`.
        size: bytes.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """A manifest whose text has the digest that names it.

    Attributes:
        digest: `sha256:…` of the text.
        media_type: one of `MEDIA_TYPES`.
        text: as the registry holds it; another spelling would be another image.
        blobs: what it names, each once; none in an index.
        children: the digests of the manifests in an index; none in an image.
    """

    digest: str
    media_type: str
    text: str
    blobs: tuple[Blob, ...] = ()
    children: tuple[str, ...] = ()


class _Read(BaseModel):
    """Unknown keys are allowed: annotations, platforms and the subject are not ours to judge."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Descriptor(_Read):
    digest: Digest
    size: Annotated[int, Field(ge=0, le=LARGEST_BLOB)]


class _Image(_Read):
    schemaVersion: Literal[2]  # noqa: N815 - as the format spells it
    mediaType: str | None = None  # noqa: N815
    config: _Descriptor
    layers: Annotated[tuple[_Descriptor, ...], Field(max_length=MOST_LAYERS, strict=False)]


class _Index(_Read):
    schemaVersion: Literal[2]  # noqa: N815
    mediaType: str | None = None  # noqa: N815
    manifests: Annotated[tuple[_Descriptor, ...], Field(max_length=MOST_CHILDREN, strict=False)]


def read_manifest(text: str, media_type: str, digest: str) -> Manifest:
    """Read a manifest that a registry gave under a digest.

    Args:
        text: what it gave.
        media_type: what it calls it; needed where the manifest does not say so itself.
        digest: what was asked for.

    Raises:
        MlopsError: the text has another digest, or is no manifest that is understood here.
    """
    content = text.encode()
    if len(content) > LARGEST_MANIFEST:
        raise MlopsError(f"the manifest {digest} has {len(content)} bytes; expected at most {LARGEST_MANIFEST}")
    found = digest_of_bytes(content)
    if found != digest:
        raise MlopsError(
            f"the registry gave a manifest with the digest {found} for {digest}",
            fix="build the image again; what the registry holds is not what was pushed",
        )
    if media_type not in MEDIA_TYPES:
        raise MlopsError(f"the manifest {digest} is of the type {media_type!r}; expected {', '.join(MEDIA_TYPES)}")
    blobs: list[Blob] = []
    children: list[str] = []
    try:
        if media_type in _INDEXES:
            index = _Index.model_validate_json(content)
            said, children = index.mediaType, [child.digest for child in index.manifests]
        else:
            image = _Image.model_validate_json(content)
            said, blobs = image.mediaType, [Blob(one.digest, one.size) for one in (image.config, *image.layers)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MlopsError(f"the manifest {digest} is not one of an image: {where or 'it'}: {first['msg']}") from None
    if said not in (None, media_type):
        raise MlopsError(f"the manifest {digest} says that it is {said}, the registry calls it {media_type}")
    return Manifest(digest, media_type, text, tuple(dict.fromkeys(blobs)), tuple(dict.fromkeys(children)))
