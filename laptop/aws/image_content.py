"""Container images without a container engine.

An image has a valid index in the registry, with a manifest for each architecture, as docker buildx pushes it. Its
digest depends only on its Dockerfile, the files it copies and the architectures, so the same content has the same
digest on any machine. Nothing is built: the files are copied to a folder of the account, in which a pod runs its
command with the packages of the laptop's Python environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from laptop.aws.cloud import Cloud

CONTEXT_LABEL = "mlops.context"
"""Label with the digest of the build context."""

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
# Empty tar archive, two blocks of 512 zero bytes padded to a record: the only layer of every image.
_EMPTY_LAYER = b"\0" * 10240


@dataclass(frozen=True)
class ImageContext:
    """Files of an image.

    Attributes:
        name: name of the image (`serving`).
        dockerfile: path of the Dockerfile.
        files: files that it copies.
        root: folder to which file names are relative.
        architectures: processors that the image is made for.
    """

    name: str
    dockerfile: Path
    files: tuple[Path, ...]
    root: Path
    architectures: tuple[str, ...] = ("amd64",)

    @classmethod
    def of(
        cls,
        name: str,
        files: Iterable[Path],
        root: Path,
        *,
        dockerfile: Path | None = None,
        architectures: tuple[str, ...] = ("amd64",),
    ) -> ImageContext:
        """Build the context of an image.

        Args:
            dockerfile: `<root>/images/<name>/Dockerfile` by default.
        """
        return cls(name, dockerfile or root / "images" / name / "Dockerfile", tuple(files), root, architectures)

    def digest(self) -> str:
        """Return the `sha256:…` of names and contents, independent of order, times and owners.

        Raises:
            MlopsError: a file is missing or outside the root.
        """
        lines = []
        for file in sorted({self.dockerfile, *self.files}):
            name = "Dockerfile" if file == self.dockerfile else self._named(file)
            try:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise MlopsError(
                    f"cannot read {file} of the image `{self.name}`: {error.strerror}",
                    fix="restore the file, or remove it from the image.",
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
    """An image in registry format.

    Attributes:
        manifest: JSON of the index.
        digest: `sha256:…` of the index: what a pod's image reference pins.
        children: digest → JSON of the manifest for each architecture.
    """

    manifest: str
    digest: str
    children: Mapping[str, str]


def image(context: ImageContext) -> Image:
    """Return the image built from a context."""
    children = {architecture: _manifest(context, architecture) for architecture in context.architectures}
    listed = [
        {**_descriptor(_MANIFEST, child), "platform": {"architecture": architecture, "os": "linux"}}
        for architecture, child in children.items()
    ]
    index = _canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed})
    return Image(index.decode(), _digest(index), {_digest(child): child.decode() for child in children.values()})


def _manifest(context: ImageContext, architecture: str) -> bytes:
    layer = _descriptor(_LAYER, _EMPTY_LAYER)
    config = _canonical(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": {CONTEXT_LABEL: context.digest(), "mlops.image": context.name}},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
    )
    return _canonical(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [layer],
        }
    )


def folder_of(home: Path, image_digest: str) -> Path:
    """Return the folder with the files of an image.

    Args:
        home: folder of the account.
        image_digest: `sha256:…` of the index.
    """
    return home / "images" / image_digest.replace(":", "-")


def digest(context: ImageContext) -> str:
    """Return the digest of a context's image without publishing it."""
    return image(context).digest


def publish(cloud: Cloud, repository: str, context: ImageContext, tag: str = "") -> str:
    """Push the image of a context to a repository and return its digest. Idempotent.

    Its files are copied to the account's folder, so later changes of the context do not affect the image.

    Args:
        cloud: account.
        repository: name of the repository.
        context: files of the image.
        tag: another tag of the image; none if empty. It always gets one that names its content.

    Raises:
        MlopsError: the repository does not exist, or a file changed during the copy.
    """
    from botocore.exceptions import ClientError

    from laptop.aws.cloud import code_of, tolerating

    made, ecr = image(context), cloud.client("ecr")
    keep(context, cloud.home)
    # The tag names the content, so an immutable repository accepts it once.
    tags = ["context-" + context.digest().removeprefix("sha256:")[:16], *([tag] if tag else [])]
    pushes: list[tuple[str, str, dict[str, str]]] = [(digest, child, {}) for digest, child in made.children.items()]
    pushes += [(made.digest, made.manifest, {"imageTag": name}) for name in tags]
    try:
        for pushed, manifest, named in pushes:
            if not named and exists(cloud, repository, pushed):
                continue
            with tolerating("ImageAlreadyExistsException", "ImageTagAlreadyExistsException"):
                ecr.put_image(
                    repositoryName=repository,
                    imageManifest=manifest,
                    imageDigest=pushed,
                    imageManifestMediaType=_INDEX if named else _MANIFEST,
                    **named,
                )
    except ClientError as error:
        raise MlopsError(
            f"cannot publish the image `{context.name}` to `{repository}`: {code_of(error)}",
            fix="run `mlops laptop publish-images`, which bootstraps the account first",
        ) from error
    if not exists(cloud, repository, made.digest):
        raise MlopsError(f"the registry does not have the image `{context.name}` under the digest {made.digest}")
    return made.digest


def keep(context: ImageContext, home: Path) -> Path:
    """Copy the files of a context to the folder of its image, atomically, and return that folder.

    Args:
        home: folder of the account.

    Raises:
        MlopsError: a file changed during the copy.
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
        if digest(replace(context, dockerfile=dockerfile, files=tuple(files), root=copied)) != expected:
            raise MlopsError(
                f"a file of the image `{context.name}` changed while it was published", fix="publish it again."
            )
        # The laptop's home may be inside of a project. A pod must find the project of its image, not that one.
        (copied / ".git").touch()
        with contextlib.suppress(OSError):  # another process copied the same content first
            copied.rename(folder)
    finally:
        shutil.rmtree(copied, ignore_errors=True)
    return folder


def exists(cloud: Cloud, repository: str, image_digest: str) -> bool:
    """Return True if a repository has an image."""
    from laptop.aws.cloud import tolerating

    with tolerating("RepositoryNotFoundException", "ImageNotFoundException"):
        found = cloud.client("ecr").batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": image_digest}])
        return bool(found["images"])
    return False


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
