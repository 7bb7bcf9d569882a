"""Interface between the product and the places where environments live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from pipelines.declarations.environment import EnvironmentDescriptor
    from pipelines.declarations.project import Project


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        ok: True if the requirement is met.
        found: the actual state.
        fix: what to do if the requirement is not met.
        visible: False if it could not be looked at; it is then not ok, and `found` says why.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    visible: bool = True


Operation = Literal["preview", "up", "destroy", "refresh"]
"""Operation of the Pulumi program; named as in the Pulumi CLI."""


@dataclass(frozen=True)
class Preview:
    """Changes that `up` would make to an environment.

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
    """A place where environments live.

    Attributes:
        name: value of the option `--target`.
        project: the repository that declares the environments.
        brief: whether `apply` sums up what it creates instead of printing each resource.
        publishing: how to make an environment run an image of the working tree; `{environment}` is its name.
    """

    name: str
    publishing: ClassVar[str] = "merge the change: the workflow `images` builds an image, and proposes to pin it"

    def __init__(self, project: Project) -> None:
        self.project = project
        self.brief = False

    @abstractmethod
    def connect(self) -> None:
        """Point the AWS and Kubernetes clients of this process at the target.

        Raises:
            MlopsError: the target cannot be reached.
        """

    def connect_account(self) -> None:
        """Point the AWS clients of this process at the target, for commands that need neither Pulumi nor a cluster.

        Raises:
            MlopsError: the target cannot be reached.
        """
        self.connect()

    def get_ready(self) -> None:  # noqa: B027 - optional
        """Start slow preparations for `apply` in the background."""

    @abstractmethod
    def apply(self, operation: Operation, environment: str, *, foundation_only: bool = False) -> None:
        """Run the Pulumi program of an environment, and print what it does.

        Args:
            operation: what to do.
            environment: its name.
            foundation_only: leave out images and releases, which only an environment that is up can judge. Refused for
                an environment that serves a model.

        Raises:
            MlopsError: the environment does not exist, or the program failed.
        """

    @abstractmethod
    def preview(self, environment: str) -> Preview:
        """Return what `up` would change, without printing it. Thread-safe.

        Raises:
            MlopsError: the environment does not exist, or the preview cannot be started.
        """

    @abstractmethod
    def outputs(self, environment: str) -> dict[str, Any]:
        """Return the stack outputs of an environment; empty if it is not up."""

    @abstractmethod
    def unlock(self, environment: str, log: Callable[[str], None], *, force: bool) -> None:
        """Remove the lock of an environment if its holder has ended.

        Args:
            environment: the environment's name.
            log: receives a line for each lock.
            force: remove the lock also if the holder runs, or may run.

        Raises:
            MlopsError: the environment does not exist, the holder runs, or the lock cannot be removed.
        """

    @abstractmethod
    def reach_cluster(self, environment: str) -> None:
        """Make KUBECONFIG name the cluster of an environment.

        Raises:
            MlopsError: the cluster cannot be reached.
        """

    def using_cluster(self, environment: str) -> AbstractContextManager[None]:
        """Make this process use the cluster of an environment during a block, without changing any file of the caller.

        Raises:
            MlopsError: the cluster cannot be reached.
        """
        self.project.stack(environment)
        return nullcontext()

    def install_engine(self, log: Callable[[str], None]) -> None:
        """Install what the target needs to run the Pulumi program in a job, at the pinned versions.

        Args:
            log: receives a line for each thing that is installed or needs no installation.

        Raises:
            MlopsError: it cannot be installed.
        """
        log(f"the target {self.name} needs no engine")

    @abstractmethod
    def drift(self, environment: str) -> list[str]:
        """List drift from the last `up` and from the declarations, one line per resource.

        Raises:
            MlopsError: the drift cannot be determined.
        """

    @abstractmethod
    def findings(self) -> Iterable[Finding]:
        """Check what the target needs, one finding per requirement. Read-only."""

    def descriptor(self, environment: str) -> EnvironmentDescriptor:
        """Return the descriptor of an environment: the names of its resources.

        Raises:
            MlopsError: the environment does not exist, or it is not up.
        """
        self.project.stack(environment)
        from pipelines.declarations.environment import EnvironmentDescriptor

        return EnvironmentDescriptor.from_output(self.outputs(environment).get("descriptor"), environment)

    def is_up(self, environment: str) -> bool:
        """Return whether an environment was brought up, and was not removed since.

        Raises:
            MlopsError: the environment does not exist.
        """
        self.project.stack(environment)
        return bool(self.outputs(environment).get("descriptor"))

    def descriptors(self) -> dict[str, EnvironmentDescriptor]:
        """Return environment → descriptor for the environments that are up, in promotion order."""
        from pipelines.declarations.environment import EnvironmentDescriptor

        up = {name: self.outputs(name).get("descriptor") for name in self.project.environments}
        return {name: EnvironmentDescriptor.from_output(value, name) for name, value in up.items() if value}
