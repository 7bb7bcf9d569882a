"""Where environments live: the real AWS by the Pulumi CLI, or this machine by the local target."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

Operation = Literal["preview", "up", "destroy", "refresh"]


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


class LocalTarget(Target):
    """This machine: an emulated AWS account and a small cluster (`mlops local start`)."""

    name = "local"

    @property
    def home(self) -> Path:
        """Where the local target keeps its files."""
        return home(self.project)

    def connect(self) -> None:
        from infra.local.target import IDENTITY, find

        environ = find(self.home).environ_of_caller()
        for name in IDENTITY:  # somebody's real account is none of the local target's business
            os.environ.pop(name, None)
        os.environ.update(environ)

    def get_ready(self) -> None:
        threading.Thread(target=_import_the_engine, daemon=True).start()

    def apply(self, operation: Operation, environment: str) -> None:
        from infra.local.deploy import deploy

        self.project.stack(environment)
        deploy(self.project.root, self.home, environment, operation)

    def outputs(self, environment: str) -> dict[str, Any]:
        from infra.local.engine.state import stack_outputs

        return dict(stack_outputs(self.home, environment) or {})

    def reach_cluster(self, environment: str) -> None:
        self.project.stack(environment)  # one cluster holds every environment, and `connect` has reached it

    def drift(self, environment: str) -> list[str]:
        from infra.local.deploy import find_drift

        return find_drift(self.project.root, self.home, environment)


def _import_the_engine() -> None:
    for name in ("infra.local.deploy", "pulumi_kubernetes.core.v1", "pulumi_aws.s3"):
        importlib.import_module(name)


class AwsTarget(Target):
    """The AWS account and the cluster that the caller's credentials and KUBECONFIG name, by the Pulumi CLI."""

    name = "aws"

    def connect(self) -> None:
        if shutil.which("pulumi") is None:
            raise MlopsError("the Pulumi CLI is not on the PATH", fix="install it, or use --target local")

    def apply(self, operation: Operation, environment: str) -> None:
        self.project.stack(environment)
        confirmed = [] if operation == "preview" else ["--yes"]
        command = ["pulumi", operation, "--stack", environment, "--non-interactive", "--diff", *confirmed]
        with self._own_cluster(environment) as environ:
            self._run(command, environ)

    def outputs(self, environment: str) -> dict[str, Any]:
        command = ["pulumi", "stack", "output", "--json", "--stack", environment]
        done = subprocess.run(command, cwd=self.project.root, check=False, capture_output=True, text=True)
        if done.returncode:
            if "no stack named" in done.stderr:
                return {}
            raise MlopsError(f"`{' '.join(command)}`: {done.stderr.strip()}")
        outputs: dict[str, Any] = json.loads(done.stdout or "{}")
        return outputs

    def reach_cluster(self, environment: str) -> None:
        self._run(self._reach(environment))

    def drift(self, environment: str) -> list[str]:
        command = ["pulumi", "preview", "--stack", environment, "--refresh", "--expect-no-changes", "--non-interactive"]
        with self._own_cluster(environment) as environ:
            done = subprocess.run(
                command, cwd=self.project.root, env=environ, check=False, capture_output=True, text=True
            )
        return [f"`{' '.join(command)}`:", *done.stdout.splitlines(), done.stderr.strip()] if done.returncode else []

    @contextmanager
    def _own_cluster(self, environment: str) -> Iterator[dict[str, str]]:
        """Variables by which a stack's program reaches that stack's cluster, whichever KUBECONFIG names for the rest.

        A job looks at several environments, and each may have a cluster of its own.
        """
        with tempfile.TemporaryDirectory() as folder:
            kubeconfig = str(Path(folder, "kubeconfig"))
            self._run([*self._reach(environment), "--kubeconfig", kubeconfig], quiet=True)
            yield {**os.environ, "KUBECONFIG": kubeconfig}

    def _reach(self, environment: str) -> list[str]:
        config = self.project.stack(environment).config
        return ["aws", "eks", "update-kubeconfig", "--name", config.environment.cluster, "--region", config.region]

    def _run(self, command: list[str], environ: dict[str, str] | None = None, *, quiet: bool = False) -> None:
        output = subprocess.DEVNULL if quiet else None
        try:
            status = subprocess.run(command, cwd=self.project.root, env=environ, stdout=output, check=False).returncode
        except FileNotFoundError:
            raise MlopsError(f"`{command[0]}` is not on the PATH", fix="install it") from None
        if status:
            raise MlopsError(f"`{' '.join(command)}` ended with status {status}")


def home(project: Project) -> Path:
    """Where the local target keeps its files: `MLOPS_HOME`, or `.mlops/local` in the project."""
    named = os.environ.get("MLOPS_HOME")
    return Path(named) if named else project.root / ".mlops" / "local"


TARGETS: dict[str, type[Target]] = {"local": LocalTarget, "aws": AwsTarget}


def open_target(name: str) -> Target:
    """The target of this project, connected.

    Raises:
        MlopsError: it cannot be reached.
    """
    target = TARGETS[name](Project.find())
    target.connect()
    return target


target_option = click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="local",
    envvar="MLOPS_TARGET",
    show_default=True,
    show_envvar=True,
    help="Where the environments live.",
)

environment_option = click.option("--env", "environment", required=True, help="dev, staging, prod, …")
