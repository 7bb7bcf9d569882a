"""The laptop as a target."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.live_models import FOUNDATION_ONLY
from pipelines.declarations.project import Project
from pipelines.targets import Finding, Operation, Preview, Target


class LaptopTarget(Target):
    """The laptop: AWS, Kubernetes and the Pulumi engine on 127.0.0.1 (`mlops laptop start`)."""

    name = "laptop"
    publishing = "mlops laptop publish-images --env {environment}, then mlops up --env {environment}"

    @property
    def home(self) -> Path:
        """Folder of the laptop's files."""
        return home(self.project)

    def connect(self) -> None:
        from laptop.lifecycle import IDENTITY, find

        environ = find(self.home).environ_of_caller()
        for name in IDENTITY:  # the laptop never uses the identity of a real account
            os.environ.pop(name, None)
        os.environ.update(environ)

    def get_ready(self) -> None:
        threading.Thread(target=_import_the_engine, daemon=True).start()

    def apply(self, operation: Operation, environment: str, *, foundation_only: bool = False) -> None:
        from laptop.engine.display import Display, Overview
        from laptop.stack_operations import deploy

        self.project.stack(environment)
        if foundation_only:
            os.environ[FOUNDATION_ONLY] = "1"  # the engine runs the program in this process
        try:
            deploy(self.project.root, self.home, environment, operation, Overview() if self.brief else Display())
        finally:
            if foundation_only:
                del os.environ[FOUNDATION_ONLY]

    def preview(self, environment: str) -> Preview:
        self.project.stack(environment)
        # A process: the engine runs one Pulumi program at a time.
        command = [sys.executable, "-m", "laptop.preview_process", str(self.project.root), str(self.home), environment]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise MlopsError(f"the preview of {environment} ended with status {done.returncode}: {done.stderr.strip()}")
        return Preview(**json.loads(done.stdout))

    def outputs(self, environment: str) -> dict[str, Any]:
        from laptop.engine.state_file import stack_outputs

        return dict(stack_outputs(self.home, environment) or {})

    def unlock(self, environment: str, log: Callable[[str], None], *, force: bool) -> None:
        from laptop.engine.lock import release_dead
        from laptop.engine.state_file import state_path

        self.project.stack(environment)
        release_dead(state_path(self.home, environment).with_suffix(".lock"), log)

    def reach_cluster(self, environment: str) -> None:
        self.project.stack(environment)  # one cluster serves every environment, and `connect` has reached it

    def drift(self, environment: str) -> list[str]:
        from laptop.stack_operations import find_drift

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
    for name in ("laptop.stack_operations", "pulumi_kubernetes.core.v1", "pulumi_aws.s3"):
        importlib.import_module(name)


def home(project: Project) -> Path:
    """Return the folder of the laptop's files: `MLOPS_HOME`, or `.mlops/laptop` in the project."""
    named = os.environ.get("MLOPS_HOME")
    return Path(named) if named else project.root / ".mlops" / "laptop"
