"""Which environments and models a change on main concerns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipelines.declarations.documents import parse
from pipelines.declarations.environment import StackFile
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.project import Project
from pipelines.github.git import Git

RELEASE_FILE = re.compile(r"^models/(?P<model>[^/]+)/releases/(?P<environment>[^/]+)\.yaml$")
"""What a release's file is called."""

EVERYWHERE = ("infra/", "data-contracts/", "Pulumi.yaml")
"""A change here may change every environment."""


def environments_to_deploy(project: Project, files: Iterable[str]) -> tuple[str, ...]:
    """The environments that a change of these files may change, in the order of promotion."""
    concerned: set[str] = set()
    for name in files:
        release = RELEASE_FILE.match(name)
        if release:
            concerned.add(release["environment"])
        elif name.startswith(EVERYWHERE) or (name.startswith("models/") and name.endswith("/model.yaml")):
            return project.environments
        elif name.startswith("Pulumi."):
            concerned.add(name.removeprefix("Pulumi.").removesuffix(".yaml"))
    return tuple(name for name in project.environments if name in concerned)


def models_to_train(project: Project, repository: Git, base: str) -> tuple[str, ...]:
    """The models that a change since `base` asks to train again.

    Code reaches a training job as an image. So what asks for training is that the first environment pins another one; a
    model whose inputs are the same in it gets the same digest, and nothing is proposed.

    Raises:
        MlopsError: there is no such commit.
    """
    first = project.environments[0]
    pinned = project.stack(first).config.environment.images.training
    before = _pinned_at(repository, repository.resolve(base), project.stack_file(first).name)
    return project.model_names if pinned is not None and pinned != before else ()


def _pinned_at(repository: Git, commit: str, name: str) -> str | None:
    """The training image that a stack's file pinned in a commit; None where there was none, or no such file."""
    if not repository.has_file(commit, name):
        return None
    try:
        return parse(repository.read_file(commit, name), StackFile, Path(name)).config.environment.images.training
    except DeclarationError:
        return None
