"""Check the prerequisites of the AWS target; read-only."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.declarations.alarm_events import connection_name
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.alarm_token import describe_delivery
from pipelines.targets.checking import check, guarded
from pipelines.targets.cluster_prerequisites import check_cluster
from pipelines.targets.network_prerequisites import check_network
from pipelines.targets.policy_pack import count_policies
from pipelines.targets.target import Finding

if TYPE_CHECKING:
    import boto3

NEEDED_ACTIONS = (
    "s3:CreateBucket",
    "s3:PutBucketPolicy",
    "kms:CreateKey",
    "kms:CreateAlias",
    "iam:CreateRole",
    "iam:PutRolePolicy",
    "iam:PassRole",
    "glue:CreateDatabase",
    "glue:CreateTable",
    "eks:CreatePodIdentityAssociation",
)
"""Minimum IAM actions for running `mlops up` on AWS."""

LANGUAGE_HOST = "pulumi-language-python"
"""Executable that comes with the Pulumi CLI and runs Python programs and policy packs."""

_PULUMI_SECONDS = 30
_INSTALL_PULUMI = "install the newest Pulumi CLI: https://www.pulumi.com/docs/install/"


def check_aws(project: Project) -> Iterator[Finding]:
    """Check the tools, the account, the cluster and the GitHub repository."""
    environments: tuple[str, ...] = ()

    def declared() -> tuple[bool, str]:
        nonlocal environments
        environments = tuple(project.environments)
        return bool(environments), ", ".join(environments) or "no Pulumi.<environment>.yaml"

    yield check("environments", "mlops validate", declared)
    yield from guarded("tools", check_tools(project), "make setup")
    yield from guarded("AWS account", check_account(project, environments), "sign in, or set AWS_PROFILE")
    for name, finding in check_clusters(project, environments):
        yield replace(finding, name=f"{finding.name}{name}")
    yield from guarded("GitHub repository", check_repository(project, environments), "sign in: gh auth login")


def check_clusters(project: Project, environments: Sequence[str]) -> Iterator[tuple[str, Finding]]:
    """Check the cluster of each environment, by its own kubeconfig.

    Without the AWS CLI, only the cluster of KUBECONFIG is checked.

    Yields:
        A suffix for the finding's name that tells clusters apart, and the finding.
    """
    clusters: dict[tuple[str, str], list[str]] = {}
    for environment in environments:
        config = project.stack(environment).config
        clusters.setdefault((config.region, config.environment.cluster), []).append(environment)
    if shutil.which("aws") is None:
        for finding in guarded("Kubernetes cluster", check_cluster(project, environments), "check KUBECONFIG"):
            yield "", finding
        return
    for (region, name), used_by in clusters.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "kubeconfig")
            command = ["aws", "eks", "update-kubeconfig", "--name", name, "--region", region, "--kubeconfig", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PULUMI_SECONDS)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
                yield f" {name}", Finding("cluster", False, f"cannot be reached: {reason}", " ".join(command[:-2]))
                continue
            with _kubeconfig(file):
                for finding in guarded("Kubernetes cluster", check_cluster(project, used_by), "check KUBECONFIG"):
                    yield f" ({name})", finding


@contextmanager
def _kubeconfig(file: Path) -> Iterator[None]:
    """Set KUBECONFIG during the block."""
    before = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = str(file)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = before


def check_tools(project: Project) -> Iterator[Finding]:
    """Check the programs that `mlops` calls, and the policy pack."""
    yield check("Pulumi CLI", _INSTALL_PULUMI, _pulumi_version)
    yield check("Pulumi language host", _INSTALL_PULUMI, _language_host)
    yield check("policy pack", "make setup", lambda: (True, f"{count_policies(project.root)} policies"))
    for tool, why in (("aws", "it signs in to the cluster"), ("kubectl", "it inspects the cluster")):
        path = shutil.which(tool)
        yield Finding(tool, path is not None, path or "not on the PATH", f"install {tool}: {why}")


def _pulumi_version() -> tuple[bool, str]:
    """Compare the CLI with the SDK: Pulumi supports programs with an SDK that is not newer than the CLI."""
    path = shutil.which("pulumi")
    if path is None:
        return False, "not on the PATH"
    done = subprocess.run(
        [path, "version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PULUMI_SECONDS,
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )
    wanted = importlib.metadata.version("pulumi")
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout.strip())
    if found is None:
        return False, f"expected version {wanted} or newer, found no version"
    version = ".".join(found.groups())
    if [int(part) for part in found.groups()] < [int(part) for part in wanted.split(".")[:3]]:
        return False, f"expected version {wanted} or newer, found {version}"
    return True, version


def _language_host() -> tuple[bool, str]:
    cli = shutil.which("pulumi")
    beside = str(Path(cli).resolve().parent) if cli else ""
    path = shutil.which(LANGUAGE_HOST, path=os.pathsep.join(filter(None, (beside, os.environ.get("PATH", "")))))
    return path is not None, path or f"{LANGUAGE_HOST} is neither on the PATH nor in the folder of pulumi"


def check_account(project: Project, environments: Sequence[str]) -> Iterator[Finding]:
    """Check the caller's identity and permissions, and the region and cluster of each environment."""
    import boto3
    from botocore.config import Config

    session = boto3.Session()
    quick = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2})
    region = session.region_name or "us-east-1"
    arn = ""

    def identify() -> tuple[bool, str]:
        nonlocal arn
        client = session.client("sts", region_name=region, config=quick)
        if not is_aws(client.meta.endpoint_url):
            return False, f"an emulated account: {client.meta.endpoint_url}"
        arn = client.get_caller_identity()["Arn"]
        return True, arn

    credentials = check("AWS credentials", "sign in again, or set AWS_PROFILE", identify)
    if credentials.found.startswith("an emulated account"):
        fix = "open another shell, or unset AWS_ENDPOINT_URL and the credentials that came with it"
        credentials = replace(credentials, fix=fix)
    yield credentials
    if not arn:
        return
    for environment in environments:
        file = project.stack_file(environment).name
        region_of = partial(_region, session, quick, project, environment)
        yield check(f"region of {environment}", f"correct aws:region in {file}", region_of)
        if _delivers_alarms(project, environment):
            alarms_of = partial(_alarms, session, quick, project, environment)
            yield check(f"alarms of {environment}", f"mlops github alarm-token --env {environment}", alarms_of)
        cluster_of = partial(_eks_cluster, session, quick, project, environment)
        found = check(f"cluster of {environment}", f"create it, or correct `cluster` in {file}", cluster_of)
        yield found
        if found.ok:
            config = project.stack(environment).config
            yield from check_network(session, quick, environment, config.region, config.environment.cluster)
    principal = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", arn)
    fix = f"grant them to {principal}, or allow it iam:SimulatePrincipalPolicy"
    yield check("AWS permissions", fix, partial(_permissions, session, quick, principal))


def is_aws(endpoint: str) -> bool:
    """Return whether the URL of a service belongs to AWS; an emulator has another."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"))


def _region(session: boto3.Session, config: Any, project: Project, environment: str) -> tuple[bool, str]:
    region = project.stack(environment).config.region
    session.client("s3", region_name=region, config=config).list_buckets(MaxBuckets=1)
    return True, region


def _eks_cluster(session: boto3.Session, config: Any, project: Project, environment: str) -> tuple[bool, str]:
    stack = project.stack(environment).config
    name = stack.environment.cluster
    cluster = session.client("eks", region_name=stack.region, config=config).describe_cluster(name=name)["cluster"]
    return cluster["status"] == "ACTIVE", f"{name}: {cluster['status']}"


def _delivers_alarms(project: Project, environment: str) -> bool:
    try:
        return project.stack(environment).config.environment.monitoring.github is not None
    except MlopsError:  # the check of the region says so
        return False


def _alarms(session: boto3.Session, config: Any, project: Project, environment: str) -> tuple[bool, str]:
    client = session.client("events", region_name=project.stack(environment).config.region, config=config)
    try:
        found = client.describe_connection(Name=connection_name(f"{project.name}-{environment}"))
    except client.exceptions.ResourceNotFoundException:
        return True, "not created yet"  # `mlops up` does it
    return describe_delivery(found)


def _permissions(session: boto3.Session, config: Any, principal: str) -> tuple[bool, str]:
    client = session.client("iam", config=config)
    answer = client.simulate_principal_policy(PolicySourceArn=principal, ActionNames=list(NEEDED_ACTIONS))
    denied = [one["EvalActionName"] for one in answer["EvaluationResults"] if one["EvalDecision"] != "allowed"]
    return not denied, f"not allowed: {', '.join(denied)}" if denied else f"{len(NEEDED_ACTIONS)} actions allowed"


def check_repository(project: Project, environments: Sequence[str]) -> Iterator[Finding]:
    """Check the settings of the repository on GitHub."""
    from pipelines.github.gh import Gh
    from pipelines.github.repository_setup import judge_repository

    if shutil.which("gh") is None:
        yield Finding("gh", False, "not on the PATH", "install the GitHub CLI and sign in: gh auth login")
        return
    try:
        gh = Gh.find(project.root)
    except MlopsError as error:
        yield Finding("GitHub repository", False, error.what, error.fix)
        return
    for setting in judge_repository(gh, environments):
        yield Finding(setting.name, setting.ok, setting.found, setting.fix, setting.status != "not visible")
