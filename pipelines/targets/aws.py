"""AWS, driven by the Pulumi CLI."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.live_models import FOUNDATION_ONLY
from pipelines.declarations.outside_errors import fix_of_output
from pipelines.targets.child_process import run_child
from pipelines.targets.held_stack import hold_stack, unlock_stack
from pipelines.targets.interrupted_update import resolve_interrupted_update
from pipelines.targets.policy_pack import pack_options
from pipelines.targets.state_bucket import StackLocks
from pipelines.targets.target import Finding, Operation, Preview, Target

_AGAIN = "do what its error above says, then run the command again: it continues where it stopped"
_TEAR_DOWN = (
    "if a resource is protected, deploy the environment with `disposable: true` first "
    "(docs/platform-engineer.md#remove-an-environment). Then run the command again: it continues where it stopped"
)


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

    def apply(self, operation: Operation, environment: str, *, foundation_only: bool = False) -> None:
        self.project.stack(environment)
        # The CLI offers policy packs for the operations that run the program.
        rules = pack_options(self.project.root) if operation in ("preview", "up") else []
        confirmed = [] if operation == "preview" else ["--yes"]
        # A rollback changes the cluster, and Pulumi compares the program with its state only.
        confirmed += ["--refresh"] if operation == "up" else []
        shown = [] if self.brief else ["--diff"]
        command = ["pulumi", operation, "--stack", environment, "--non-interactive", *shown, *rules, *confirmed]
        with self._cluster_variables(environment) as environ:
            if foundation_only:
                environ[FOUNDATION_ONLY] = "1"
            if operation == "preview":  # Pulumi takes no lock for it
                self._run(command, environ)
                return
            with self._holding(environment, operation):
                resolve_interrupted_update(partial(self._pulumi, environment, environ), print)
                self._run(command, environ)

    def preview(self, environment: str) -> Preview:
        self.project.stack(environment)
        rules = pack_options(self.project.root)
        with tempfile.TemporaryDirectory() as folder, self._cluster_variables(environment) as environ:
            log = Path(folder, "events.jsonl")
            command = ["pulumi", "preview", "--stack", environment, "--non-interactive", "--diff", *rules]
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
            raise MlopsError(f"`{' '.join(command)}`: {done.stderr.strip()}", fix=fix_of_output(done.stderr))
        outputs: dict[str, Any] = json.loads(done.stdout or "{}")
        return outputs

    def unlock(self, environment: str, log: Callable[[str], None], *, force: bool) -> None:
        locks = self._locks(environment)
        if locks is None:
            raise MlopsError(
                f"the state of {environment} is not in an S3 bucket: expected a backend s3://…, found "
                f"{self._backend_url()}",
                fix=f"pulumi cancel --stack {environment}",
            )
        unlock_stack(locks, self.project.root, log, force=force)

    def reach_cluster(self, environment: str) -> None:
        self._run(self._kubeconfig_command(environment))

    @contextmanager
    def using_cluster(self, environment: str) -> Iterator[None]:
        before = os.environ.get("KUBECONFIG")
        with self._cluster_variables(environment) as environ:
            os.environ["KUBECONFIG"] = environ["KUBECONFIG"]
            try:
                yield
            finally:
                os.environ.pop("KUBECONFIG")
                if before is not None:
                    os.environ["KUBECONFIG"] = before

    def install_engine(self, log: Callable[[str], None]) -> None:
        if not os.environ.get("PULUMI_BACKEND_URL") and self.project.backend is None:
            # A job has no login. A variable of the repository will not do: everyone with write access may set it.
            raise MlopsError(
                "Pulumi.yaml names no state: expected `backend: {url: s3://…}`, found none",
                fix="give the outputs of the bootstrap to `mlops github setup --outputs FILE --apply`, and commit "
                "Pulumi.yaml",
            )
        installed = self._read("pulumi", "version").strip().removeprefix("v")
        pins = engine_versions(self.project.root)
        if installed != pins["pulumi"]:
            raise MlopsError(
                f"the Pulumi CLI has the wrong version: expected {pins['pulumi']}, as the SDK, found {installed}",
                fix=f"install version {pins['pulumi']} of the Pulumi CLI",
            )
        log(f"Pulumi {installed}")
        present = {(one["name"], one["version"]) for one in json.loads(self._read("pulumi", "plugin", "ls", "--json"))}
        for package, version in pins.items():
            name = package.removeprefix("pulumi-")
            if package == name or (name, version) in present:
                continue
            self._run(["pulumi", "plugin", "install", "resource", name, version])
            log(f"installed the provider {name} {version}")

    def drift(self, environment: str) -> list[str]:
        command = ["pulumi", "preview", "--stack", environment, "--refresh", "--expect-no-changes", "--non-interactive"]
        command += pack_options(self.project.root)
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

    def _holding(self, environment: str, operation: Operation) -> AbstractContextManager[None]:
        """Hold a stack during a block; Pulumi alone guards a stack whose state is not in S3."""
        locks = self._locks(environment)
        return nullcontext() if locks is None else hold_stack(locks, self.project.root, operation, print)

    def _locks(self, environment: str) -> StackLocks | None:
        self.project.stack(environment)
        return StackLocks.of_backend(self._backend_url(), self.project.name, environment)

    def _backend_url(self) -> str:
        """Return the URL of the backend that Pulumi uses: from the environment, else `Pulumi.yaml`, else its login."""
        url = os.environ.get("PULUMI_BACKEND_URL") or self.project.backend
        return url or str(json.loads(self._read("pulumi", "whoami", "--json"))["url"])

    def _pulumi(self, environment: str, environ: dict[str, str], *arguments: str) -> str:
        return self._read("pulumi", *arguments, "--stack", environment, environ=environ)

    def _read(self, *command: str, environ: dict[str, str] | None = None) -> str:
        """Run a command and return its standard output.

        Raises:
            MlopsError: the command failed.
        """
        done = subprocess.run(command, cwd=self.project.root, env=environ, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise MlopsError(f"`{' '.join(command)}` failed: {said}", fix=fix_of_output(said))
        return done.stdout

    def _kubeconfig_command(self, environment: str) -> list[str]:
        config = self.project.stack(environment).config
        return ["aws", "eks", "update-kubeconfig", "--name", config.environment.cluster, "--region", config.region]

    def _run(self, command: list[str], environ: dict[str, str] | None = None, *, quiet: bool = False) -> None:
        output = subprocess.DEVNULL if quiet else None
        status = run_child(command, folder=self.project.root, environ=environ, output=output)
        if status:
            raise MlopsError(
                f"`{' '.join(command)}` failed with status {status}",
                fix=_TEAR_DOWN if "destroy" in command else _AGAIN,
            )


def engine_versions(root: Path) -> dict[str, str]:
    """Return the pinned versions of Pulumi and its providers: `pulumi`, `pulumi-aws`, `pulumi-kubernetes`.

    The CLI and the provider plugins have the versions of their SDKs.

    Raises:
        MlopsError: `requirements/infra.txt` does not pin one of them.
    """
    path = root / "requirements" / "infra.txt"
    pins = dict(re.findall(r"^(pulumi[\w-]*)==([^ ;\\]+)", path.read_text() if path.is_file() else "", re.MULTILINE))
    wanted = ("pulumi", "pulumi-aws", "pulumi-kubernetes")
    if missing := [name for name in wanted if name not in pins]:
        raise MlopsError(f"{path}: expected a pin of {', '.join(missing)}, found none", fix="run `make lock`")
    return {name: pins[name] for name in wanted}


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
