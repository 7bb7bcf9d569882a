"""Bring the images that an environment pins into its own repositories, from the environment that it promotes from."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.declarations.environment import EnvironmentDescriptor, Images
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.image_manifest import Manifest
from pipelines.promotion.image_repository import ImageRepository, NoRepositoryError
from pipelines.promotion.images import NAMES

DEEPEST = 3
"""How many indexes may lie in each other."""


def replicate_images(
    source: EnvironmentDescriptor | None,
    target: EnvironmentDescriptor,
    pinned: Images,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """See to it that every image that an environment pins is in its own repositories.

    Args:
        source: the environment before; None for the first, into whose repositories images are built.
        target: the environment whose pods are to run them.
        pinned: in `Pulumi.<target>.yaml`.
        say: told of each image that was copied.

    Raises:
        MlopsError: an image is in neither environment, or cannot be copied.
    """
    for name in NAMES:
        digest = getattr(pinned, name)
        if digest is None:
            continue
        before = ImageRepository.of(source, name) if source is not None else None
        if replicate_image(before, ImageRepository.of(target, name), digest):
            say(f"the image {name} is in the repository of {target.name}")


def replicate_image(source: ImageRepository | None, target: ImageRepository, digest: str) -> bool:
    """Copy an image from one repository into another, unless it is there already; whether it was copied.

    What a manifest names goes before it, so a copy that was interrupted leaves no image, and the next one finishes it.
    What is said about the image (attestations) is copied after it, and looked for each time: more may have been said
    since. Everything is checked against its digest.

    Args:
        source: the repository before; None when there is none.
        target: the repository that is to hold it.
        digest: of the image's manifest, or of its index.

    Raises:
        MlopsError: it is in neither, or cannot be read, verified or written.
    """
    held = target.find(digest)
    if held is None:
        given = _find(source, digest)
        if source is None or given is None:
            raise MlopsError(
                f"the image {digest} is in neither {target} nor {source}"
                if source is not None
                else f"the image {digest} is not in {target}",
                fix="run the workflow `images`, and merge the pull request that it opens; it deploys every environment",
            )
        # Without a tag, the repository's lifecycle would end the image while it runs.
        _copy(source, target, given, tag=f"replicated-{digest.removeprefix('sha256:')}")
    if source is not None:
        _copy_statements(source, target, digest)
    return held is None


def _find(repository: ImageRepository | None, digest: str) -> Manifest | None:
    """What a repository holds; nothing, when the repository is gone with its environment."""
    try:
        return repository.find(digest) if repository is not None else None
    except NoRepositoryError:
        return None


def _copy(
    source: ImageRepository, target: ImageRepository, manifest: Manifest, *, tag: str | None = None, deep: int = DEEPEST
) -> None:
    if manifest.children and not deep:
        raise MlopsError(f"the index {manifest.digest} lies within {DEEPEST} others")
    for digest in manifest.children:
        if target.find(digest) is None:
            child = source.find(digest)
            if child is None:
                raise MlopsError(f"{source} holds {manifest.digest}, but not {digest}, which it names")
            _copy(source, target, child, deep=deep - 1)
    for blob in target.lacks(manifest.blobs):
        with source.fetched(blob) as content:
            target.take(blob, content)
    target.put(manifest, tag)


def _copy_statements(source: ImageRepository, target: ImageRepository, digest: str) -> None:
    """Copy what the source says about an image, and the target does not yet."""
    try:
        said = source.referrers(digest)
    except NoRepositoryError:
        return
    known = set(target.referrers(digest)) if said else set()
    for one in said:
        if one in known:
            continue
        statement = source.find(one)
        if statement is not None:
            _copy(source, target, statement)
