"""Credentials of the laptop's AWS account: only for a job that the role trusts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.aws.account import Account, start
from laptop.aws.cloud import Cloud
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.runner.results import WorkflowRun
from laptop.github.trust import AUDIENCE, ISSUER
from laptop.tests.github.sample_repository import AWS, hub_with, push

pytestmark = pytest.mark.slow

LOGIN = "aws-actions/amazon-ecr-login@03f1aad4c6c7ffd436567f42f9384779290529bd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("github")


@pytest.fixture(scope="module")
def account(folder: Path) -> Iterator[Account]:
    """An AWS account that knows GitHub's issuer, with a role for prod and one for previews."""
    running = start(folder / "home" / "aws")
    iam = Cloud(running.environ(), running.home).client("iam")
    provider = iam.create_open_id_connect_provider(
        Url=f"https://{ISSUER}", ClientIDList=[AUDIENCE], ThumbprintList=["0" * 40]
    )["OpenIDConnectProviderArn"]
    for name, sub in (("deploy-prod", "repo:acme/mlops:environment:prod"), ("preview", "repo:acme/mlops:pull_request")):
        statement: dict[str, Any] = {
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": provider},
            "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": sub}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    yield running
    running.stop()


def job(role: str, *, environment: str = "", permission: str = "id-token: write") -> str:
    where = f"\n                environment: {environment}" if environment else ""
    return f"""
                runs-on: ubuntu-latest{where}
                permissions: {{{permission}}}
                steps:
                  - id: aws
                    uses: {AWS}
                    with: {{role-to-assume: 'arn:aws:iam::123456789012:role/{role}', aws-region: eu-west-1}}
                  - {{id: ecr, uses: {LOGIN}}}
                  - run: |
                      echo "key=$AWS_SECRET_ACCESS_KEY region=$AWS_REGION"
                      echo "account=${{{{ steps.aws.outputs.aws-account-id }}}}"
                      echo "registry=${{{{ steps.ecr.outputs.registry }}}}"
"""


def errors(run: WorkflowRun, name: str) -> str:
    return " ".join(annotation.message for annotation in run.job(name).annotations)


def test_a_job_can_only_assume_a_role_that_trusts_it(folder: Path, account: Account) -> None:
    hub = hub_with(
        folder,
        {
            "w.yml": f"""
            on: [workflow_dispatch, pull_request]
            jobs:
              prod: {job("deploy-prod", environment="prod")}
              dev: {job("deploy-prod", environment="dev")}
              shouted: {job("deploy-prod", environment="PROD")}
              nowhere: {job("deploy-prod")}
              preview: {job("preview")}
              silent: {job("deploy-prod", environment="prod", permission="contents: write")}
              missing: {job("no-such-role", environment="prod")}
              nobody: {{runs-on: ubuntu-latest, steps: [{{uses: {LOGIN}}}]}}
            """
        },
        RepositorySettings(users=("maria",), environments={"prod": ("main",)}),
        environ=account.environ(),
    )
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    log = run.job("prod").log
    assert run.job("prod").conclusion == "success", errors(run, "prod")
    assert log is not None
    text = log.read_text()
    assert "key=*** region=eu-west-1\naccount=123456789012" in text
    assert "registry=123456789012.dkr.ecr.eu-west-1.amazonaws.com" in text
    assert "assumed arn:aws:iam::123456789012:role/deploy-prod as repo:acme/mlops:environment:prod" in text
    assert "AccessDenied" in errors(run, "dev") and "as repo:acme/mlops:environment:dev" in errors(run, "dev")
    assert "as repo:acme/mlops:environment:PROD" in errors(run, "shouted"), "roles compare the case"
    assert "as repo:acme/mlops:ref:refs/heads/main" in errors(run, "nowhere")
    assert "deploy-prod" not in errors(run, "preview") and "AccessDenied" in errors(run, "preview")
    assert "add `id-token: write`" in errors(run, "silent")
    assert "AccessDenied" in errors(run, "missing")
    assert "not signed in" in errors(run, "nobody")

    push(hub.clone(folder / "clone", "maria"), "feature", {"x": "1"})
    hub.open("maria", "feature", "T")
    (run,) = hub.pump()
    assert run.job("preview").conclusion == "success", errors(run, "preview")
    # A pull request cannot reach prod, whatever its workflow says.
    assert all("not allowed to deploy to prod" in errors(run, name) for name in ("prod", "shouted"))
    assert "as repo:acme/mlops:environment:dev" in errors(run, "dev")
