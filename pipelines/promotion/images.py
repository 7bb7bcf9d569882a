"""Images: list the files that go into them, name their content, and pin their digests."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.document_edits import with_value
from pipelines.declarations.environment import Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import repository_name
from pipelines.declarations.project import Project

NAMES = ("training", "serving")


@dataclass(frozen=True)
class BuildContext:
    """Build context of an image.

    Attributes:
        name: `training` or `serving`.
        dockerfile: its Dockerfile.
        files: the Dockerfile and every file of the repository that it copies, sorted.
    """

    name: str
    dockerfile: Path
    files: tuple[Path, ...]


def build_context(project: Project, name: str) -> BuildContext:
    """Return the files that `docker build` copies into an image.

    The Dockerfile's `COPY` lines and `.dockerignore` are the only source of this list.

    Raises:
        MlopsError: the image does not exist, or a `COPY` names a file that does not exist.
    """
    if name not in NAMES:
        raise MlopsError(f"unknown image: expected one of {', '.join(NAMES)}, found {name!r}")
    dockerfile = project.root / "pipelines" / name / "Dockerfile"
    if not dockerfile.is_file():
        raise MlopsError(f"{dockerfile.relative_to(project.root)} does not exist")
    ignored = _ignored(project.root)
    files = {dockerfile}
    for line in dockerfile.read_text().splitlines():
        words = line.split()
        if not words or words[0] != "COPY" or words[1].startswith("--from"):
            continue
        for source in words[1:-1]:
            path = project.root / source
            if not path.exists():
                raise MlopsError(f"{dockerfile.relative_to(project.root)} copies {source}, which does not exist")
            found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
            files.update(p for p in found if not _matches(p.relative_to(project.root), ignored))
    return BuildContext(name, dockerfile, tuple(sorted(files)))


def architectures_of(project: Project) -> tuple[str, ...]:
    """Return the architectures that images are built for, sorted: those that any environment selects.

    Raises:
        DeclarationError: the configuration of an environment is invalid.
    """
    selected = {name for e in project.environments for name in project.stack(e).config.environment.architectures}
    return tuple(sorted(selected))


def content_key(project: Project, name: str) -> str:
    """Return a digest of all that decides the content of an image, 64 hexadecimal digits.

    These are the Dockerfile, which names the base image by digest, the files that it copies, and the architectures.
    Two commits with the same key need only one image.

    Raises:
        MlopsError: see `build_context`.
    """
    context = build_context(project, name)
    total = hashlib.sha256(f"{name} for {' '.join(architectures_of(project))}\n".encode())
    for path in context.files:
        kind = "x" if path.stat().st_mode & stat.S_IXUSR else "-"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{kind} {digest} {path.relative_to(project.root).as_posix()}\n".encode())
    return total.hexdigest()


def key_tag(key: str) -> str:
    """Return the tag of the image with a content key. It is added last, so an image that has it is complete."""
    return f"key-{key}"


def build_tag(commit: str, run: str, attempt: str) -> str:
    """Return the tag under which a workflow run pushes an image. Tags are immutable, so each attempt needs its own."""
    return f"{commit}-{run}-{attempt}"


def read_tags(tags: Iterable[str]) -> tuple[str | None, str | None]:
    """Return the commit and the content key that the tags of an image name; None for what they do not name."""
    commits = [found[1] for tag in tags if (found := re.fullmatch(r"([0-9a-f]{40})-\d+-\d+", tag))]
    keys = [found[1] for tag in tags if (found := re.fullmatch(r"key-([0-9a-f]{64})", tag))]
    return (commits[0] if commits else None), (keys[0] if keys else None)


def repository_url(project: Project, environment: str, account: str, name: str) -> str:
    """Return the URL of the ECR repository from which an environment pulls an image.

    Args:
        project: the repository.
        environment: the environment; it need not be up.
        account: AWS account of the environments, unless the environment's `image_registry` names another.
        name: name of the image.

    Raises:
        MlopsError: the environment does not exist.
    """
    config = project.stack(environment).config
    registry = config.environment.image_registry
    owner, region = registry.account or account, registry.region or config.region
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{owner}.dkr.ecr.{region}.{domain}/{repository_name(project.name, name)}"


def _ignored(root: Path) -> tuple[str, ...]:
    path = root / ".dockerignore"
    lines = path.read_text().splitlines() if path.is_file() else []
    patterns = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    for pattern in patterns:
        if pattern.startswith("!"):
            raise MlopsError(f".dockerignore: exceptions are not supported: {pattern}")
    return patterns


def _matches(path: Path, patterns: tuple[str, ...]) -> bool:
    """Return whether a pattern of `.dockerignore` matches the path or a parent; `*` does not match a slash."""
    for folder in (path, *path.parents):
        parts = folder.parts
        for pattern in patterns:
            wanted = tuple(pattern.strip("/").split("/"))
            if wanted[0] == "**":
                wanted, tail = wanted[1:], parts[-len(wanted[1:]) :]
            else:
                tail = parts
            if len(tail) == len(wanted) and all(map(fnmatch.fnmatchcase, tail, wanted)):
                return True
    return False


def parse_images(digests: Mapping[str, str]) -> Images:
    """Return images from name → digest.

    Raises:
        MlopsError: a value is not a digest.
    """
    try:
        return Images(**digests)
    except ValueError:
        raise MlopsError(
            f"not the digest of an image: expected sha256: and 64 hexadecimal digits, found {dict(digests)}"
        ) from None


def pin_images(project: Project, environment: str, images: Images) -> bool:
    """Write image digests into `Pulumi.<environment>.yaml`.

    Args:
        project: the repository.
        environment: the environment.
        images: the digests; None keeps the pinned one.

    Returns:
        True if the file changed.
    """
    pinned = project.stack(environment).config.environment.images
    wanted = Images(training=images.training or pinned.training, serving=images.serving or pinned.serving)
    if wanted == pinned:
        return False
    path = project.stack_file(environment)
    value = f"{{training: {wanted.training or 'null'}, serving: {wanted.serving or 'null'}}}"
    text = with_value(path.read_text(), ("config", "mlops:environment", "images"), value)
    write_atomically(path, text)
    return True
