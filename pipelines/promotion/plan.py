"""Which environments and models a change on main concerns."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.declarations.project import Project

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


def models_to_train(project: Project, files: Iterable[str]) -> tuple[str, ...]:
    """The models that a change of these files asks to train again.

    Code reaches a training job as an image. So what asks for training is that the first environment pins another one; a
    model whose inputs are the same in it gets the same digest, and nothing is proposed.
    """
    first = project.stack_file(project.environments[0]).name
    return project.model_names if first in set(files) else ()
