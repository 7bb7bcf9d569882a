"""Locks and half-done updates: the Pulumi CLI killed at any moment, and the next operation.

The state is in a bucket of the emulated account. The AWS target runs the CLI, as in a deployment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from laptop import plugin_executables
from laptop.aws.account import start
from laptop.conformance.control_plane import ControlPlane
from laptop.conformance.engines import FoundEngine
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.aws import AwsTarget
from pipelines.targets.held_stack import StackHeldError
from pipelines.targets.interrupted_update import resolve_interrupted_update
from pipelines.targets.state_bucket import StackLocks
from tests.sample_project import copy_as_forked

ROOT = Path(__file__).parents[2]
SEEDS = range(int(os.environ.get("KILLS", "12")))
"""Moments to kill at; KILLS=24 kills at more of them."""
DRIFT_EVERY = 4
"""Kills after which the stack is compared with the account, which takes as long as an update."""

FIRST_SECONDS = 120.0
"""Time allowed for one operation on a busy machine."""

PROGRAM = """
import json, os
import pulumi
import pulumi_aws as aws

generation = os.environ["GENERATION"]
tags = {"generation": generation}
trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
    "Principal": {"Service": "pods.eks.amazonaws.com"}}]})
allow = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket",
    "Resource": "*"}]})
key = aws.kms.Key("shared", description="shared", tags=tags)
aws.kms.Alias("shared", name="alias/shared", target_key_id=key.key_id)
for name in ("one", "two"):
    bucket = aws.s3.Bucket(name, bucket=f"thing-{name}-{generation}", tags=tags)
    aws.s3.BucketVersioning(name, bucket=bucket.bucket, versioning_configuration={"status": "Enabled"})
    role = aws.iam.Role(name, name=f"thing-{name}-{generation}", assume_role_policy=trust, tags=tags)
    aws.iam.RolePolicy(name, name="access", role=role.name, policy=allow)
    aws.glue.CatalogDatabase(f"{name}-{generation}", name=f"thing_{name}_{generation}")
pulumi.export("generation", generation)
"""

PACK = """
from pulumi_policy import EnforcementLevel, PolicyPack, StackValidationPolicy

nothing = StackValidationPolicy("nothing", "Refuses nothing", lambda args, report: None)
PolicyPack("locks", [nothing], EnforcementLevel.MANDATORY)
"""
"""The repository's rules would refuse the program, which is made to be quick."""

PACK_PROJECT = """
runtime: {name: python, options: {virtualenv: ../../.venv}}
version: 0.1.0
"""

AWS = """#!{python}
import json, pathlib, sys
file = pathlib.Path(sys.argv[sys.argv.index("--kubeconfig") + 1])
file.write_text("{{}}")
"""
"""The only call of the AWS CLI is `aws eks update-kubeconfig`; the program uses no cluster."""


@dataclass
class Site:
    """A project whose stack `dev` lives in an emulated account.

    Attributes:
        target: the AWS target of the project.
        locks: the locks of `dev`.
        seconds: duration of an undisturbed `up`.
    """

    target: AwsTarget
    locks: StackLocks
    seconds: float = 0.0

    def up(self, generation: str) -> float:
        """Bring the stack up in this process; return the seconds it took."""
        os.environ["GENERATION"] = generation
        began = time.monotonic()
        self.target.apply("up", "dev")
        return time.monotonic() - began

    def start_up(self, generation: str) -> subprocess.Popen[bytes]:
        """Bring the stack up in another process."""
        script = (
            "import signal, sys; from pathlib import Path; from pipelines.declarations.project import Project; "
            "from pipelines.targets.aws import AwsTarget; "
            # A shell starts background jobs with SIGINT ignored, and a child inherits that.
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            "AwsTarget(Project(Path(sys.argv[1]))).apply('up', 'dev')"
        )
        return subprocess.Popen(
            [sys.executable, "-c", script, str(self.target.project.root)],
            env={**os.environ, "GENERATION": generation, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            process_group=0,
        )

    def await_lock(self, child: subprocess.Popen[bytes]) -> int:
        """Wait until the Pulumi of a process has locked the stack; return its process id."""
        until = time.monotonic() + FIRST_SECONDS
        while time.monotonic() < until and child.poll() is None:
            for lock in self.locks.pulumi_locks():
                return lock.pid
            time.sleep(0.02)
        raise AssertionError(f"no lock appeared; status {child.poll()}")

    def await_unfinished(self, child: subprocess.Popen[bytes], times: int) -> None:
        """Wait until the state has shown unfinished operations so many times, or the process has ended."""
        seen: set[str] = set()
        while len(seen) < times and child.poll() is None:
            unfinished = self.checkpoint().get("pending_operations") or ()
            seen |= {f"{one['type']} {one['resource']['urn']}" for one in unfinished}

    def checkpoint(self) -> dict[str, Any]:
        """Return the newest checkpoint."""
        key = ".pulumi/stacks/mlops/dev.json"
        content = self.locks.client.get_object(Bucket=self.locks.bucket, Key=key)["Body"].read()
        latest: dict[str, Any] = json.loads(content)["checkpoint"]["latest"]
        return latest

    def things(self) -> set[str]:
        """Return the names of what the program's generations have created, from the account itself."""
        buckets = {one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]}
        roles = {f"role {one['RoleName']}" for one in boto3.client("iam").list_roles()["Roles"]}
        databases = {one["Name"] for one in boto3.client("glue").get_databases()["DatabaseList"]}
        return {name for name in buckets | roles | databases if "thing" in name}

    def check(self, generation: str, *, drift: bool = True) -> None:
        """Check that the stack is whole: nothing unfinished, no orphans, no lock, and no drift if asked."""
        latest = self.checkpoint()
        assert not latest.get("pending_operations")
        if drift:
            assert self.target.drift("dev") == []
        names = ("one", "two")
        assert self.things() == {
            *(f"thing-{name}-{generation}" for name in names),
            *(f"role thing-{name}-{generation}" for name in names),
            *(f"thing_{name}_{generation}" for name in names),
        }
        assert list(self.locks.pulumi_locks()) == []
        assert self.locks.read_record()[0].holder is None


def kill_tree(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything it started, as a runner does when a run is cancelled."""
    found = psutil.Process(child.pid).children(recursive=True)
    for process in (psutil.Process(child.pid), *found):
        with_gone = process.is_running()
        if with_gone:
            process.kill()
    psutil.wait_procs(found, timeout=10)
    child.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pulumi_cli: FoundEngine) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("locks")
    project = copy_as_forked(folder / "project")
    (project / "infra" / "__main__.py").write_text(PROGRAM)
    (project / ".venv").symlink_to(sys.prefix)
    (project / "infra" / "policies").mkdir()
    (project / "infra" / "policies" / "PulumiPolicy.yaml").write_text(PACK_PROJECT)
    (project / "infra" / "policies" / "__main__.py").write_text(PACK)
    for file in project.glob("Pulumi.*.yaml"):  # the account has no key for secrets, and the stack has no secrets
        file.write_text("\n".join(line for line in file.read_text().splitlines() if "secretsprovider" not in line))
    account = start(folder / "home" / "aws")
    with pytest.MonkeyPatch.context() as patch:
        try:
            binaries = folder / "bin"
            binaries.mkdir()
            (binaries / "pulumi").symlink_to(pulumi_cli.path)
            (binaries / "aws").write_text(AWS.format(python=sys.executable))
            (binaries / "aws").chmod(0o755)
            plugins = plugin_executables.install(folder / "home", f"{binaries}{os.pathsep}{os.environ['PATH']}")
            for name, value in account.environ().items():
                patch.setenv(name, value)
            patch.setenv("PATH", os.pathsep.join((str(plugins), str(binaries), os.environ["PATH"])))
            patch.setenv("PULUMI_HOME", str(folder / "pulumi"))
            patch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
            patch.setenv("GENERATION", "first")
            boto3.setup_default_session()
            bucket = "state-of-pulumi"
            where = {"LocationConstraint": account.region}
            boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
            url = f"s3://{bucket}?region={account.region}&use_path_style=true"
            patch.setenv("PULUMI_BACKEND_URL", url)
            subprocess.run(["pulumi", "stack", "init", "dev"], cwd=project, check=True, capture_output=True)
            locks = StackLocks.of_backend(url, "mlops", "dev")
            assert locks is not None
            made = Site(AwsTarget(Project(project)), locks)
            made.up("first")
            made.check("first")
            made.seconds = made.up("second")
            made.check("second")
            yield made
        finally:
            account.stop()
            shutil.rmtree(folder, ignore_errors=True)
    boto3.setup_default_session()


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_kill_at_any_moment_the_next_up_goes_through(
    site: Site, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = random.Random(seed)
    generation = f"g{seed}"
    child = site.start_up(generation)
    try:
        pulumi = site.await_lock(child)
        if seed % 3:  # in the middle of a call of AWS
            site.await_unfinished(child, chosen.randint(1, 20))
        else:  # at any time; the moment is the case, not a wait
            time.sleep(chosen.uniform(0, site.seconds * 0.6))
        if seed % 2:
            kill_tree(child)  # a cancelled run
        else:
            os.kill(pulumi, signal.SIGKILL)  # the CLI alone: its plugins finish the calls that they began
            child.wait(FIRST_SECONDS)
    except (psutil.NoSuchProcess, ProcessLookupError):
        child.wait(FIRST_SECONDS)  # it was done before the moment came
    unfinished = [one["type"] for one in site.checkpoint().get("pending_operations") or ()]
    print(f"seed {seed}: unfinished {unfinished}")
    site.up(generation)
    site.check(generation, drift=seed % DRIFT_EVERY == DRIFT_EVERY - 1)


def test_a_pulumi_that_outlives_its_parent_is_named_and_not_disturbed(site: Site) -> None:
    child = site.start_up("orphan")
    pulumi = site.await_lock(child)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    os.kill(pulumi, signal.SIGSTOP)  # not before: the kernel hangs up a stopped process when its parent ends
    with pytest.raises(StackHeldError, match=rf"pulumi, process {pulumi}, started by `up` in process {child.pid}"):
        site.up("orphan")
    with pytest.raises(StackHeldError):
        site.target.unlock("dev", print, force=False)
    os.kill(pulumi, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pulumi)] if psutil.pid_exists(pulumi) else [], timeout=10)
    site.up("orphan")
    site.check("orphan")


def test_unlocking_after_a_kill_lets_pulumi_itself_go_on(site: Site) -> None:
    child = site.start_up("unlocked")
    site.await_lock(child)
    kill_tree(child)
    command = ["pulumi", "refresh", "--yes", "--stack", "dev", "--non-interactive"]
    refused = subprocess.run(command, cwd=site.target.project.root, check=False, capture_output=True, text=True)
    assert "currently locked by 1 lock" in refused.stderr
    lines: list[str] = []
    site.target.unlock("dev", lines.append, force=False)
    assert len(lines) == 1
    assert lines[0].endswith("has ended; removed its lock")
    subprocess.run(command, cwd=site.target.project.root, check=True, capture_output=True)
    site.up("unlocked")
    site.check("unlocked")


def test_an_interrupted_up_ends_in_order(site: Site) -> None:
    """Ctrl-C: Pulumi finishes its current steps, and the lock is released."""
    child = site.start_up("interrupted")
    site.await_lock(child)
    child.send_signal(signal.SIGINT)
    child.wait(FIRST_SECONDS)
    assert child.returncode != 0
    assert list(site.locks.pulumi_locks()) == []
    assert site.locks.read_record()[0].holder is None
    site.up("interrupted")
    site.check("interrupted")


def test_a_failed_up_releases_the_stack(site: Site) -> None:
    with pytest.raises(MlopsError, match="failed with status"):
        site.up("not a valid bucket name")
    assert list(site.locks.pulumi_locks()) == []
    site.up("valid")
    site.check("valid")


KUBERNETES_PROGRAM = """
import pulumi_kubernetes as k8s

space = k8s.core.v1.Namespace("space", metadata={"name": "space"})
where = {"namespace": space.metadata["name"]}
k8s.core.v1.ServiceAccount("account", metadata={"name": "account", **where})
k8s.networking.v1.NetworkPolicy("deny", metadata={"name": "deny", **where}, spec={"podSelector": {}})
k8s.batch.v1.CronJob("job", metadata={"name": "job", **where}, spec={"schedule": "0 0 1 1 *", "suspend": True,
    "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": "none"}]}}}}})
"""


def test_kubernetes_objects_whose_creation_was_interrupted_are_found_or_created_again(
    tmp_path: Path, pulumi_with_kubernetes: Path, api_server: ControlPlane
) -> None:
    """The state is that of a CLI killed after the API server created two objects, and before it created the third."""
    (tmp_path / "Pulumi.yaml").write_text("name: objects\nruntime: python\n")
    (tmp_path / "__main__.py").write_text(KUBERNETES_PROGRAM)
    (tmp_path / "state").mkdir()
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    path = os.pathsep.join((str(pulumi_with_kubernetes), os.environ["PATH"]))
    plugin_executables.install_language_host(plugins, path)
    environ = {
        **os.environ,
        "PATH": os.pathsep.join((str(plugins), path)),
        "KUBECONFIG": str(api_server.kubeconfig),
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "",
    }

    def pulumi(*arguments: str) -> str:
        command = ["pulumi", *arguments, "--stack", "dev"]
        done = subprocess.run(command, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pulumi("stack", "init", "--non-interactive")
    pulumi("up", "--yes", "--skip-preview", "--non-interactive")
    file = tmp_path / "state" / ".pulumi" / "stacks" / "objects" / "dev.json"
    document = json.loads(file.read_text())
    latest = document["checkpoint"]["latest"]
    taken = [one for one in latest["resources"] if one["urn"].rpartition("::")[2] in ("account", "deny", "job")]
    latest["resources"] = [one for one in latest["resources"] if one not in taken]
    unfinished = [{key: value for key, value in one.items() if key not in ("id", "outputs")} for one in taken]
    latest["pending_operations"] = [{"resource": one, "type": "creating"} for one in unfinished]
    file.write_text(json.dumps(document))
    with api_server.client() as client:
        assert client.delete("/apis/batch/v1/namespaces/space/cronjobs/job").status_code == 200
    lines: list[str] = []
    assert resolve_interrupted_update(pulumi, lines.append) is not None
    assert "space/account exists, and is in the state now" in lines
    assert "space/deny exists, and is in the state now" in lines
    assert "space/job was not created" in lines
    pulumi("up", "--yes", "--skip-preview", "--non-interactive")
    pulumi("preview", "--refresh", "--expect-no-changes", "--non-interactive")
    assert resolve_interrupted_update(pulumi, lines.append) is None
