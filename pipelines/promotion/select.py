"""Select what a change affects: environments to deploy, models to train, release files to judge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.declarations.documents import parse
from pipelines.declarations.environment import Images, StackFile
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.project import Project
from pipelines.github.alarm_workflow import RESPOND, only_lists_environments
from pipelines.github.git import Git

RELEASE_FILE = re.compile(r"^models/(?P<model>[^/]+)/releases/(?P<environment>[^/]+)\.yaml\Z")
"""Path of a release file."""

STACK_FILE = re.compile(r"^Pulumi\.(?P<environment>[^/]+)\.yaml\Z")
"""Path of the configuration of an environment."""

EVERYWHERE = ("infra/", "data-contracts/", "Pulumi.yaml")
"""Path prefixes whose changes may affect every environment."""

NO_COMMIT = "0" * 40
"""Commit id that GitHub sends as the base of a new branch."""


@dataclass(frozen=True)
class ChangedFiles:
    """The files of a change: what the gates judge, and the rest.

    Attributes:
        releases: release files.
        pins: configurations of environments whose pinned images change.
        other: all other files, and configurations that differ in more than pins: the tests and previews cover them.
        lists: the other files of which the change edits nothing but the list of environments.
    """

    releases: tuple[str, ...]
    pins: tuple[str, ...]
    other: tuple[str, ...]
    lists: tuple[str, ...] = ()


def select_changes(git: Git, base: str) -> ChangedFiles:
    """Sort the files changed since `base` into what the gates judge and the rest.

    A configuration that cannot be read counts as other: the tests refuse it.

    Raises:
        MlopsError: the commit does not exist.
    """
    files = git.changed_files(base, "HEAD")
    releases = tuple(name for name in files if RELEASE_FILE.match(name))
    pins, other = [], []
    for name in files:
        pin = pin_difference(git, base, "HEAD", name) if STACK_FILE.match(name) else None
        if pin is not None and pin.changed:
            pins.append(name)
        if name not in releases and (pin is None or not pin.only):
            other.append(name)
    lists = tuple(name for name in other if name == str(RESPOND) and _only_lists_environments(git, base, name))
    return ChangedFiles(releases, tuple(pins), tuple(other), lists)


def _only_lists_environments(git: Git, base: str, name: str) -> bool:
    commits = git.merge_base(base, "HEAD"), git.head()
    if not all(git.has_file(commit, name) for commit in commits):
        return False
    before, after = (git.read_file(commit, name).decode(errors="replace") for commit in commits)
    return only_lists_environments(before, after)


@dataclass(frozen=True)
class PinDifference:
    """How the configuration of an environment changes.

    Attributes:
        before, after: the pinned images.
        only: whether nothing but the pins differs.
    """

    before: Images
    after: Images
    only: bool

    @property
    def changed(self) -> bool:
        """Whether an image is pinned that was not, or the other way round."""
        return self.before != self.after


def pin_difference(git: Git, base: str, head: str, name: str) -> PinDifference | None:
    """Return how a change of a configuration affects its pins; None if the file is gone or invalid after it.

    Args:
        git: the clone.
        base: the commit or branch to merge into.
        head: the newest commit of the change.
        name: path of the configuration.

    Raises:
        MlopsError: a commit does not exist.
    """
    after = git.resolve(head)
    new = _stack_at(git, after, name)
    if new is None:
        return None
    old = _stack_at(git, git.read("merge-base", git.resolve(base), after), name)
    only = old is not None and _without_pins(old) == _without_pins(new)
    before = old.config.environment.images if old is not None else Images()
    return PinDifference(before, new.config.environment.images, only)


def _without_pins(stack: StackFile) -> dict[str, object]:
    value = stack.model_dump(mode="json")
    value["config"]["environment"]["images"] = None
    return value


def select_environments(project: Project, git: Git, *, base: str = "", environment: str = "") -> tuple[str, ...]:
    """Return the environments to deploy after a change, in promotion order.

    Args:
        project: the declarations as merged.
        git: the clone.
        base: the commit before the change; without one, every environment is selected.
        environment: select this environment only, whatever changed.

    Raises:
        MlopsError: the commit or the environment does not exist.
    """
    if environment:
        project.stack(environment)
        return (environment,)
    if base in ("", NO_COMMIT):
        return project.environments
    return environments_to_deploy(project, git.changed_files(base, "HEAD"))


def select_models(project: Project, git: Git, *, base: str = "", model: str = "") -> tuple[str, ...]:
    """Return the models to train after a change.

    Args:
        project: the declarations as merged.
        git: the clone.
        base: the commit before the change; without one, every model is selected.
        model: select this model only, whatever changed.

    Raises:
        MlopsError: the commit or the model does not exist.
    """
    if model:
        project.model(model)
        return (model,)
    return project.model_names if base in ("", NO_COMMIT) else models_to_train(project, git, base)


def environments_to_deploy(project: Project, files: Iterable[str]) -> tuple[str, ...]:
    """Return the environments that a change of these files may affect, in promotion order."""
    affected: set[str] = set()
    for name in files:
        release = RELEASE_FILE.match(name)
        if release:
            affected.add(release["environment"])
        elif name.startswith(EVERYWHERE) or (name.startswith("models/") and name.endswith("/model.yaml")):
            return project.environments
        elif name.startswith("Pulumi."):
            affected.add(name.removeprefix("Pulumi.").removesuffix(".yaml"))
    return tuple(name for name in project.environments if name in affected)


def models_to_train(project: Project, git: Git, base: str) -> tuple[str, ...]:
    """Return every model if the first environment pins another training image than at `base`, else none.

    Code reaches a training job as an image, so a new pin is what makes training necessary. A model whose inputs are
    unchanged in the new image gets the same digest, and nothing is proposed.

    Raises:
        MlopsError: the commit does not exist.
    """
    first = project.environments[0]
    pinned = project.stack(first).config.environment.images.training
    before = _pinned_at(git, git.resolve(base), project.stack_file(first).name)
    return project.model_names if pinned is not None and pinned != before else ()


def _pinned_at(git: Git, commit: str, name: str) -> str | None:
    """Return the training image that a stack file pinned at a commit; None if it had none or was invalid."""
    return pinned_images(git, commit, name).training


def pinned_images(git: Git, commit: str, name: str) -> Images:
    """Return the images that a stack file pins at a commit; none if it is missing or invalid there.

    Raises:
        MlopsError: the commit does not exist.
    """
    stack = _stack_at(git, commit, name)
    return stack.config.environment.images if stack is not None else Images()


def _stack_at(git: Git, commit: str, name: str) -> StackFile | None:
    """Return the configuration in a commit; None if it is missing or invalid there."""
    if not git.has_file(commit, name):
        return None
    try:
        return parse(git.read_file(commit, name), StackFile, Path(name))
    except DeclarationError:
        return None
