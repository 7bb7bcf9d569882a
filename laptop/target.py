"""The laptop as a target."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.declarations.project import Project
from pipelines.targets import Finding, Operation, Target


class LaptopTarget(Target):
    """This machine: an emulated AWS account and a small cluster (`mlops laptop start`)."""

    name = "laptop"

    @property
    def home(self) -> Path:
        """Where the local target keeps its files."""
        return home(self.project)

    def connect(self) -> None:
        from laptop.lifecycle import IDENTITY, find

        environ = find(self.home).environ_of_caller()
        for name in IDENTITY:  # somebody's real account is none of the local target's business
            os.environ.pop(name, None)
        os.environ.update(environ)

    def get_ready(self) -> None:
        threading.Thread(target=_import_the_engine, daemon=True).start()

    def apply(self, operation: Operation, environment: str) -> None:
        from laptop.stacks import deploy

        self.project.stack(environment)
        deploy(self.project.root, self.home, environment, operation)

    def outputs(self, environment: str) -> dict[str, Any]:
        from laptop.engine.state import stack_outputs

        return dict(stack_outputs(self.home, environment) or {})

    def reach_cluster(self, environment: str) -> None:
        self.project.stack(environment)  # one cluster holds every environment, and `connect` has reached it

    def drift(self, environment: str) -> list[str]:
        from laptop.stacks import find_drift

        return find_drift(self.project.root, self.home, environment)

    def findings(self) -> Iterator[Finding]:
        try:
            with socket.create_server(("127.0.0.1", 0)):
                yield Finding("loopback", True, "a server can listen on 127.0.0.1")
        except OSError as error:
            yield Finding("loopback", False, str(error), "allow this user to listen on 127.0.0.1")
        folder = next(path for path in (self.home, *self.home.parents) if path.exists())
        yield Finding(
            "laptop", os.access(folder, os.W_OK), str(self.home), f"make {folder} writable, or set MLOPS_HOME"
        )


def _import_the_engine() -> None:
    for name in ("laptop.stacks", "pulumi_kubernetes.core.v1", "pulumi_aws.s3"):
        importlib.import_module(name)


def home(project: Project) -> Path:
    """Where the local target keeps its files: `MLOPS_HOME`, or `.mlops/laptop` in the project."""
    named = os.environ.get("MLOPS_HOME")
    return Path(named) if named else project.root / ".mlops" / "laptop"
