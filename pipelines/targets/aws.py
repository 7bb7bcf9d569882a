"""AWS, driven by the Pulumi CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.targets.target import Finding, Operation, Preview, Target


class AwsTarget(Target):
    """An AWS account and its clusters, driven by the Pulumi CLI with the caller's credentials."""

    name = "aws"

    def connect(self) -> None:
        if shutil.which("pulumi") is None:
            raise MlopsError(
                "the Pulumi CLI is not on the PATH", fix="install the Pulumi CLI, or choose another --target"
            )

    def connect_account(self) -> None:
        """Do nothing: the AWS clients use the standard configuration."""

    def apply(self, operation: Operation, environment: str) -> None:
        self.project.stack(environment)
        confirmed = [] if operation == "preview" else ["--yes"]
        command = ["pulumi", operation, "--stack", environment, "--non-interactive", "--diff", *confirmed]
        with self._cluster_variables(environment) as environ:
            self._run(command, environ)

    def preview(self, environment: str) -> Preview:
        self.project.stack(environment)
        with tempfile.TemporaryDirectory() as folder, self._cluster_variables(environment) as environ:
            log = Path(folder, "events.jsonl")
            command = ["pulumi", "preview", "--stack", environment, "--non-interactive", "--diff"]
            done = subprocess.run(
                [*command, "--event-log", str(log)],
                cwd=self.project.root,
                env={**environ, "PULUMI_DEBUG_COMMANDS": "true"},  # without it there is no --event-log
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
            )
            changes, error = read_events(log.read_text().splitlines() if log.is_file() else ())
        problem = (error or f"`pulumi preview` failed with status {done.returncode}") if done.returncode else ""
        return Preview(done.stdout, changes, problem)

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
        self._run(self._kubeconfig_command(environment))

    def drift(self, environment: str) -> list[str]:
        command = ["pulumi", "preview", "--stack", environment, "--refresh", "--expect-no-changes", "--non-interactive"]
        with self._cluster_variables(environment) as environ:
            done = subprocess.run(
                command, cwd=self.project.root, env=environ, check=False, capture_output=True, text=True
            )
        return [f"`{' '.join(command)}`:", *done.stdout.splitlines(), done.stderr.strip()] if done.returncode else []

    def findings(self) -> Iterator[Finding]:
        from pipelines.targets.prerequisites import check_aws

        return check_aws(self.project)

    @contextmanager
    def _cluster_variables(self, environment: str) -> Iterator[dict[str, str]]:
        """Yield environment variables with which a stack's program uses that stack's cluster.

        KUBECONFIG may name another cluster, because one job can preview several environments.
        """
        with tempfile.TemporaryDirectory() as folder:
            kubeconfig = str(Path(folder, "kubeconfig"))
            self._run([*self._kubeconfig_command(environment), "--kubeconfig", kubeconfig], quiet=True)
            yield {**os.environ, "KUBECONFIG": kubeconfig}

    def _kubeconfig_command(self, environment: str) -> list[str]:
        config = self.project.stack(environment).config
        return ["aws", "eks", "update-kubeconfig", "--name", config.environment.cluster, "--region", config.region]

    def _run(self, command: list[str], environ: dict[str, str] | None = None, *, quiet: bool = False) -> None:
        output = subprocess.DEVNULL if quiet else None
        try:
            status = subprocess.run(command, cwd=self.project.root, env=environ, stdout=output, check=False).returncode
        except FileNotFoundError:
            raise MlopsError(f"`{command[0]}` is not on the PATH", fix=f"install {command[0]}") from None
        if status:
            raise MlopsError(f"`{' '.join(command)}` failed with status {status}")


def read_events(lines: Iterable[str]) -> tuple[dict[str, int], str]:
    """Read an event log of Pulumi.

    Args:
        lines: one engine event in JSON each; see `pulumi.automation.events`.

    Returns:
        Operation → number of resources, as the summary counts them; and the first error, or "".
    """
    changes: dict[str, int] = {}
    error = ""
    for event in map(json.loads, filter(None, lines)):
        changes = event.get("summaryEvent", {}).get("resourceChanges") or changes
        diagnostic, violation = event.get("diagnosticEvent", {}), event.get("policyEvent", {})
        if diagnostic.get("severity") == "error":
            error = error or diagnostic["message"].strip().removeprefix("error: ")
        if violation.get("enforcementLevel") == "mandatory":
            error = error or violation["message"].strip()
    return changes, error
