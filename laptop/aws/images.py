"""Container images on a machine without a container engine: a real manifest in a real registry.

The digest of such an image is a function of its Dockerfile and the files it copies, so that the same content is the
same image on any machine. Nothing is built: the files are kept beside the registry, and there a pod's command runs,
with the packages of the Python environment that the target was started from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from laptop.aws.cloud import Cloud

CONTEXT_LABEL = "mlops.context"
"""The label that carries the digest of the build context."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
# An empty tar archive: two blocks of 512 zero bytes, padded to a record. The one layer of every such image.
_EMPTY_LAYER = b"\0" * 10240


@dataclass(frozen=True)
class Context:
    """What an image is built from.

    Attributes:
        name: of the image (`serving`).
        dockerfile: the Dockerfile.
        files: every file it copies in.
        root: the folder that the files' names are relative to.
    """

    name: str
    dockerfile: Path
    files: tuple[Path, ...]
    root: Path

    @classmethod
    def of(cls, name: str, files: Iterable[Path], root: Path, *, dockerfile: Path | None = None) -> Context:
        """The context of an image.

        Args:
            dockerfile: where it is; `<root>/images/<name>/Dockerfile` when not given.
        """
        return cls(name, dockerfile or root / "images" / name / "Dockerfile", tuple(files), root)

    def digest(self) -> str:
        """`sha256:…` of names and contents; neither order, time nor owner of the files counts.

        Raises:
            MlopsError: a file is missing, or lies outside the root.
        """
        lines = []
        for file in sorted({self.dockerfile, *self.files}):
            name = "Dockerfile" if file == self.dockerfile else self._named(file)
            try:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise MlopsError(
                    f"the image `{self.name}` needs {file}, which cannot be read: {error.strerror}",
                    fix="restore the file, or take it out of the image.",
                ) from error
            lines.append(f"{content}  {name}\n")
        return "sha256:" + hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    def _named(self, file: Path) -> str:
        try:
            return file.relative_to(self.root).as_posix()
        except ValueError as error:
            raise MlopsError(
                f"the image `{self.name}` copies {file}, which is outside {self.root}",
                fix="copy only files of the project.",
            ) from error


@dataclass(frozen=True)
class Image:
    """An image as a registry holds it.

    Attributes:
        manifest: the manifest's JSON.
        digest: `sha256:…` of the manifest: what a pod's image reference pins.
        blobs: digest → content of what the manifest names, the configuration and the layer.
    """

    manifest: str
    digest: str
    blobs: Mapping[str, bytes]


def image(context: Context) -> Image:
    """The image of a context, without a registry."""
    layer = _descriptor(_LAYER, _EMPTY_LAYER)
    config = _canonical(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {CONTEXT_LABEL: context.digest(), "mlops.image": context.name}},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
    )
    manifest = _canonical(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [layer],
        }
    )
    return Image(manifest.decode(), _digest(manifest), {_digest(blob): blob for blob in (config, _EMPTY_LAYER)})


def folder_of(home: Path, image_digest: str) -> Path:
    """Where the files of an image are, if they are kept here.

    Args:
        home: the account's folder.
        image_digest: `sha256:…` of the manifest.
    """
    return home / "images" / image_digest.replace(":", "-")


def digest(context: Context) -> str:
    """The digest that `publish` gives, without publishing."""
    return image(context).digest


def publish(cloud: Cloud, repository: str, context: Context) -> str:
    """Puts the image of a context into a repository and returns its digest. Publishing it again changes nothing.

    Its files are kept in the account's folder, so that a pod runs what was published, whatever becomes of the context.

    Args:
        repository: the repository's name.

    Raises:
        MlopsError: there is no such repository, or a file changed meanwhile.
    """
    from botocore.exceptions import ClientError

    from laptop.aws.cloud import code_of, tolerating

    made = image(context)
    keep(context, cloud.home)
    try:
        _push_blobs(cloud, repository, made.blobs)
        with tolerating("ImageAlreadyExistsException", "ImageTagAlreadyExistsException"):
            cloud.client("ecr").put_image(
                repositoryName=repository,
                imageManifest=made.manifest,
                imageDigest=made.digest,
                imageManifestMediaType=_MANIFEST,
                # A tag that names the content: an immutable repository takes it once.
                imageTag="context-" + context.digest().removeprefix("sha256:")[:16],
            )
    except ClientError as error:
        raise MlopsError(
            f"the image `{context.name}` cannot be published to `{repository}`: {code_of(error)}",
            fix="provision the environment first; it makes the repository.",
        ) from error
    if not exists(cloud, repository, made.digest):
        raise MlopsError(f"the registry holds the image `{context.name}` under another digest than {made.digest}")
    return made.digest


def _push_blobs(cloud: Cloud, repository: str, blobs: Mapping[str, bytes]) -> None:
    """Puts into a repository what it does not hold of the blobs; each is small enough for one part."""
    ecr = cloud.client("ecr")
    answer = ecr.batch_check_layer_availability(repositoryName=repository, layerDigests=list(blobs))
    for blob in set(blobs) - {layer["layerDigest"] for layer in answer["layers"]}:
        upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
        ecr.upload_layer_part(
            repositoryName=repository,
            uploadId=upload,
            partFirstByte=0,
            partLastByte=len(blobs[blob]) - 1,
            layerPartBlob=blobs[blob],
        )
        ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=[blob])


def keep(context: Context, home: Path) -> Path:
    """Copies the files of a context into the folder of its image, wholly or not at all, and returns that folder.

    Args:
        home: the account's folder.

    Raises:
        MlopsError: a file changed meanwhile.
    """
    expected = digest(context)
    folder = folder_of(home, expected)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    copied = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for file in {context.dockerfile, *context.files}:
            if file.is_relative_to(context.root):
                copy = copied / file.relative_to(context.root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        files = [copied / file.relative_to(context.root) for file in context.files]
        dockerfile = context.dockerfile
        if dockerfile.is_relative_to(context.root):
            dockerfile = copied / dockerfile.relative_to(context.root)
        if digest(Context(context.name, dockerfile, tuple(files), copied)) != expected:
            raise MlopsError(
                f"a file of the image `{context.name}` changed while it was published", fix="publish it again."
            )
        with contextlib.suppress(OSError):  # another was faster, with the same content
            copied.rename(folder)
    finally:
        shutil.rmtree(copied, ignore_errors=True)
    return folder


def exists(cloud: Cloud, repository: str, image_digest: str) -> bool:
    """Whether a repository holds an image."""
    from laptop.aws.cloud import tolerating

    with tolerating("RepositoryNotFoundException", "ImageNotFoundException"):
        found = cloud.client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageDigest": image_digest}])
        return bool(found["imageDetails"])
    return False


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
