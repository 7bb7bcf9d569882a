"""Check the prerequisites of the AWS target; read-only."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.target import Finding

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


def check_aws(project: Project) -> Iterator[Finding]:
    """Check the tools, the account, the cluster and the GitHub repository."""
    for tool, why in (("pulumi", "it applies the program"), ("kubectl", "it inspects the cluster")):
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
        yield Finding("AWS permissions", False, f"unknown: {error}", "allow iam:SimulatePrincipalPolicy on yourself")


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
    from pipelines.github.gh import Gh
    from pipelines.github.settings import read_settings

    if shutil.which("gh") is None:
        yield Finding("gh", False, "not on the PATH", "install the GitHub CLI and sign in: gh auth login")
        return
    try:
        gh = Gh.find(project.root)
    except MlopsError as error:
        yield Finding("GitHub repository", False, error.what, error.fix)
        return
    for setting in read_settings(gh, project.environments):
        yield Finding(setting.name, setting.ok, setting.found, setting.fix)
