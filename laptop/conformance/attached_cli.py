"""The Pulumi CLI with providers that the test process serves."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from laptop.conformance.engines import FoundEngine
from laptop.engine.provider import Provider
from laptop.engine.provider_servicer import ProviderServicer, serving
from laptop.plugin_executables import install_language_host
from tests.sample_project import ROOT

PACK = ROOT / "infra" / "policies"
_ATTEMPT_SECONDS = 300
_VERSION = "99.0.0"  # newer than any SDK, because the CLI warns of an older plugin


@dataclass(frozen=True)
class AttachedCli:
    """The Pulumi CLI with providers of this process.

    Attributes:
        path: value of PATH with the CLI and a language host.
        home: folder for its state, its plugins and its logs.
        providers: package → port.
    """

    path: str
    home: Path
    providers: Mapping[str, int]

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment variables of the CLI."""
        return {
            **os.environ,
            "PATH": self.path,
            "PYTHONPATH": str(ROOT),
            "PULUMI_HOME": str(self.home / "pulumi"),
            "PULUMI_BACKEND_URL": f"file://{self.home}",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_DEBUG_PROVIDERS": ",".join(f"{name}:{port}" for name, port in self.providers.items()),
            "PULUMI_DEBUG_COMMANDS": "true",  # without it there is no --event-log
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing here asks AWS, so the policy pack is not required
            **more,
        }

    def run(self, project: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI in a project, and return its result."""
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=project,
            env=self.environ(**more),
            capture_output=True,
            text=True,
            check=False,
            timeout=_ATTEMPT_SECONDS,
        )

    def create_stack(self, project: Path, stack: str) -> None:
        """Create a stack without resources."""
        done = self.run(project, "stack", "init", stack)
        assert done.returncode == 0, done.stderr

    def violations(self, project: Path, operation: str, *more: str) -> set[tuple[str, str]]:
        """Run an operation with the repository's policy pack, and return the mandatory violations: rule and URN.

        Without violations, the operation must succeed.
        """
        log = self.home / "events.jsonl"
        log.unlink(missing_ok=True)
        command = (operation, "--stack", "dev", "--policy-pack", str(PACK), "--event-log", str(log), *more)
        done = self.run(project, *command)
        events = [json.loads(line) for line in log.read_text().splitlines()]
        found = {
            (event["policyEvent"]["policyName"], event["policyEvent"]["resourceUrn"])
            for event in events
            if event.get("policyEvent", {}).get("enforcementLevel") == "mandatory"
        }
        assert (done.returncode == 0) is (not found), f"{done.stdout}\n{done.stderr}"
        assert any("policyAnalyzeStackSummaryEvent" in event for event in events), "the pack did not run"
        return found


def connect(stack: ExitStack, path: str, home: Path, providers: Mapping[str, Provider]) -> AttachedCli:
    """Serve providers, and return the CLI that uses them."""
    ports = {
        package: stack.enter_context(serving(ProviderServicer(provider, package, _VERSION)))
        for package, provider in providers.items()
    }
    return AttachedCli(path, home, ports)


def path_with(pulumi: FoundEngine, folder: Path) -> str:
    """Return a PATH with the CLI and a language host, which is written to a folder."""
    (folder / "pulumi").symlink_to(pulumi.path)
    path = os.pathsep.join((str(folder), str(pulumi.path.parent), os.environ["PATH"]))
    install_language_host(folder, path)
    return path
