"""Interface between the product and the place where environments live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was looked at.
        ok: whether it is as it must be.
        found: what is there.
        fix: what to do when it is not.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


Operation = Literal["preview", "up", "destroy", "refresh"]


@dataclass(frozen=True)
class Preview:
    """What `up` would change in an environment.

    Attributes:
        text: the plan as the target prints it.
        changes: Pulumi operation (`create`, `update`, `replace`, `delete`, `same`, …) → number of resources.
        problem: why the program cannot be applied; empty if it can.
    """

    text: str
    changes: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.problem)


class Target(ABC):
    """Where environments live.

    Attributes:
        name: as the option `--target` spells it.
        project: the repository whose environments they are.
    """

    name: str

    def __init__(self, project: Project) -> None:
        self.project = project

    @abstractmethod
    def connect(self) -> None:
        """Point the AWS and Kubernetes clients of this process at the target.

        Raises:
            MlopsError: it cannot be reached.
        """

    def get_ready(self) -> None:  # noqa: B027 - most have nothing to begin
        """Begin, in the background, what `apply` needs anyway: the caller has something else to do before."""

    @abstractmethod
    def apply(self, operation: Operation, environment: str) -> None:
        """Run the Pulumi program of an environment, and print what it does.

        Raises:
            MlopsError: it failed.
        """

    @abstractmethod
    def preview(self, environment: str) -> Preview:
        """Return what `up` would change, without printing it. Several threads may call this at the same time.

        Raises:
            MlopsError: there is no such environment, or the preview cannot be started.
        """

    @abstractmethod
    def outputs(self, environment: str) -> dict[str, Any]:
        """The outputs of an environment's stack; empty when it is not up."""

    @abstractmethod
    def reach_cluster(self, environment: str) -> None:
        """Make the cluster of an environment the one that KUBECONFIG names.

        Raises:
            MlopsError: it cannot be reached.
        """

    @abstractmethod
    def drift(self, environment: str) -> list[str]:
        """What is no longer as the last `up` left it, or as the repository declares it; a line each.

        Raises:
            MlopsError: it cannot be found out.
        """

    @abstractmethod
    def findings(self) -> Iterable[Finding]:
        """Check what the target needs, one finding a requirement; used by `mlops doctor`. Changes nothing."""

    def descriptor(self, environment: str) -> EnvironmentDescriptor:
        """The names of what an environment's stack made.

        Raises:
            MlopsError: there is no such environment, or it is not up.
        """
        self.project.stack(environment)
        return EnvironmentDescriptor.from_output(self.outputs(environment).get("descriptor"), environment)

    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        """The descriptors of the environments that are up, in the order of promotion."""
        up = {name: self.outputs(name).get("descriptor") for name in self.project.environments}
        return {name: EnvironmentDescriptor.from_output(value, name) for name, value in up.items() if value}
