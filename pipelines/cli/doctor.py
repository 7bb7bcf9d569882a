"""Name what is missing before anything is created: `mlops doctor`."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from pipelines.cli.targets import home, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

FREE_DISK = 1 << 30
OLDEST_PYTHON = (3, 11)

NEEDED_ACTIONS = (
    "s3:CreateBucket",
    "s3:PutBucketPolicy",
    "kms:CreateKey",
    "kms:CreateAlias",
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:PassRole",
    "ecr:CreateRepository",
    "glue:CreateDatabase",
    "glue:CreateTable",
    "eks:CreatePodIdentityAssociation",
)
"""What the one who runs `up` on AWS must at least be allowed to do."""


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


def on_any_target(project: Project) -> Iterator[Finding]:
    """What every use of the repository needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info[:2] >= OLDEST_PYTHON, version, "install Python 3.11 or newer")
    git = shutil.which("git")
    yield Finding("git", git is not None, git or "not on the PATH", "install git")
    missing = sorted(missing_requirements(project.root / "requirements"))
    found = f"{len(missing)} missing or of another version: {', '.join(missing[:5])}" if missing else "as pinned"
    yield Finding("requirements", not missing, found, "make setup")
    free = shutil.disk_usage(project.root).free
    yield Finding("disk", free >= FREE_DISK, f"{free / 1e9:.1f} GB free", "free at least 1 GB")


def on_local() -> Iterator[Finding]:
    """What the local target needs."""
    try:
        with socket.create_server(("127.0.0.1", 0)):
            yield Finding("loopback", True, "a server can listen on 127.0.0.1")
    except OSError as error:
        yield Finding("loopback", False, str(error), "allow this user to listen on 127.0.0.1")
    project = Project.find()
    folder = next(path for path in (home(project), *home(project).parents) if path.exists())
    writable = _writable(folder)
    yield Finding("local target", writable, str(home(project)), f"make {folder} writable, or set MLOPS_HOME")


def on_aws(project: Project) -> Iterator[Finding]:
    """What a real account and cluster need; asks them, and changes nothing."""
    for tool, why in (("pulumi", "it applies the program"), ("kubectl", "to look into the cluster")):
        path = shutil.which(tool)
        yield Finding(tool, path is not None, path or "not on the PATH", f"install {tool}: {why}")
    yield from _account(project)
    yield from _cluster()
    yield from _repository(project)


def _account(project: Project) -> Iterator[Finding]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        session = boto3.Session()
        identity = session.client("sts", region_name=session.region_name or "us-east-1").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        yield Finding("AWS credentials", False, str(error), "sign in, or set AWS_PROFILE")
        return
    yield Finding("AWS credentials", True, identity["Arn"])
    for environment in project.environments:
        region = project.stack(environment).config.region
        try:
            session.client("s3", region_name=region).list_buckets(MaxBuckets=1)
            yield Finding(f"region of {environment}", True, region)
        except (BotoCoreError, ClientError) as error:
            fix = f"correct aws:region in {project.stack_file(environment).name}"
            yield Finding(f"region of {environment}", False, str(error), fix)
    arn = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", identity["Arn"])
    try:
        answer = session.client("iam").simulate_principal_policy(PolicySourceArn=arn, ActionNames=list(NEEDED_ACTIONS))
        denied = [r["EvalActionName"] for r in answer["EvaluationResults"] if r["EvalDecision"] != "allowed"]
        found = f"not allowed: {', '.join(denied)}" if denied else f"{len(NEEDED_ACTIONS)} actions allowed"
        yield Finding("AWS permissions", not denied, found, f"grant them to {arn}")
    except (BotoCoreError, ClientError) as error:
        yield Finding(
            "AWS permissions", False, f"cannot be asked: {error}", "allow iam:SimulatePrincipalPolicy on yourself"
        )


def _cluster() -> Iterator[Finding]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
    from lightkube.resources.core_v1 import Namespace
    from lightkube.resources.networking_v1 import IngressClass

    from pipelines.cluster.connection import connect

    try:
        with connect("default") as client:
            client.get(Namespace, "default")
            yield Finding("Kubernetes cluster", True, "answers")
            wanted: tuple[tuple[str, type, str, str], ...] = (
                ("Argo Rollouts", CustomResourceDefinition, "rollouts.argoproj.io", "install Argo Rollouts"),
                ("ingress class", IngressClass, "alb", "install the AWS Load Balancer Controller"),
            )
            for name, kind, resource, fix in wanted:
                try:
                    client.get(kind, resource)
                    yield Finding(name, True, resource)
                except ApiError as error:
                    yield Finding(name, False, f"{resource}: {error.status.reason}", fix)
    except MlopsError as error:
        yield Finding("Kubernetes cluster", False, error.what, error.fix or "check KUBECONFIG")


def _repository(project: Project) -> Iterator[Finding]:
    from pipelines.promotion.forge import Forge
    from pipelines.promotion.settings import read_settings

    if shutil.which("gh") is None:
        yield Finding("gh", False, "not on the PATH", "install the GitHub CLI, and sign in: gh auth login")
        return
    try:
        forge = Forge.of(project.root)
    except MlopsError as error:
        yield Finding("GitHub repository", False, error.what, error.fix)
        return
    for setting in read_settings(forge, project.environments):
        yield Finding(setting.name, setting.ok, setting.found, setting.fix)


def missing_requirements(folder: Path) -> Iterator[str]:
    """Pinned requirements that are not installed here in that version (those for other platforms are passed over)."""
    pinned = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^ \\;]+)(?: *; *(.*?))? *\\?$", re.MULTILINE)
    for group in ("infra", "pipelines", "local", "test"):
        for name, version, marker in pinned.findall((folder / f"{group}.txt").read_text()):
            if marker:
                continue
            try:
                if importlib.metadata.version(name) != version:
                    yield name
            except importlib.metadata.PackageNotFoundError:
                yield name


def _writable(folder: Path) -> bool:
    probe = folder / ".mlops-doctor"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def report(findings: Iterator[Finding], echo: Callable[[str], None]) -> int:
    """Print the findings as they come; how many are not as they must be."""
    missing = 0
    for finding in findings:
        mark = click.style("ok     ", fg="green") if finding.ok else click.style("missing", fg="red", bold=True)
        echo(f"{mark}  {finding.name:<22} {finding.found}")
        if not finding.ok:
            missing += 1
            echo(f"         fix: {finding.fix}")
    return missing


@click.command()
@target_option
def doctor(target: str) -> None:
    """Name each missing tool, permission or setting, before anything is created."""
    project = Project.find()

    def findings() -> Iterator[Finding]:
        yield from on_any_target(project)
        yield from on_local() if target == "local" else on_aws(project)

    missing = report(findings(), click.echo)
    if missing:
        raise MlopsError(f"{missing} {'thing is' if missing == 1 else 'things are'} missing for the {target} target")
