"""Credentials of the emulated account: only for a job that its role trusts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from infra.local.github.results import Run
from infra.local.github.settings import Settings
from tests.infra.local.github.toys import AWS, hub_with, push

LOGIN = "aws-actions/amazon-ecr-login@03f1aad4c6c7ffd436567f42f9384779290529bd"
ISSUER = "token.actions.githubusercontent.com"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The emulated account with a role for prod and one for previews; the environment of its operator."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    credentials = tmp_path_factory.mktemp("aws") / "credentials"
    credentials.write_text("[default]\naws_access_key_id = OPERATOR\naws_secret_access_key = operator-key\n")
    iam = boto3.client(
        "iam", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    for name, sub in (("deploy-prod", "repo:acme/mlops:environment:prod"), ("preview", "repo:acme/mlops:pull_request")):
        statement: dict[str, Any] = {
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"},
            "Condition": {"StringEquals": {f"{ISSUER}:aud": "sts.amazonaws.com", f"{ISSUER}:sub": sub}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server.stop()


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
                      test "$AWS_ACCESS_KEY_ID" != OPERATOR
"""


def errors(run: Run, name: str) -> str:
    return " ".join(annotation.message for annotation in run.job(name).annotations)


def test_a_job_gets_the_role_that_trusts_it_and_no_other(tmp_path: Path, account: dict[str, str]) -> None:
    hub = hub_with(
        tmp_path,
        {
            "w.yml": f"""
            on: [workflow_dispatch, pull_request]
            jobs:
              prod: {job("deploy-prod", environment="prod")}
              dev: {job("deploy-prod", environment="dev")}
              nowhere: {job("deploy-prod")}
              preview: {job("preview")}
              silent: {job("deploy-prod", environment="prod", permission="contents: write")}
              missing: {job("no-such-role", environment="prod")}
              nobody: {{runs-on: ubuntu-latest, steps: [{{uses: {LOGIN}}}]}}
            """
        },
        Settings(users=("maria",), environments={"prod": ("main",)}),
        environ=account,
    )
    hub.dispatch("maria", "w.yml")
    (run,) = hub.pump()
    log = run.job("prod").log
    assert run.job("prod").conclusion == "success", errors(run, "prod")
    assert log is not None
    text = log.read_text()
    assert "key=*** region=eu-west-1\naccount=123456789012" in text
    assert "registry=123456789012.dkr.ecr.eu-west-1.amazonaws.com" in text
    assert "operator-key" not in text
    assert "sub is 'repo:acme/mlops:environment:dev'" in errors(run, "dev")
    assert "sub is 'repo:acme/mlops:ref:refs/heads/main'" in errors(run, "nowhere")
    assert "and the policy wants 'repo:acme/mlops:pull_request'" in errors(run, "preview")
    assert "add `id-token: write`" in errors(run, "silent")
    assert "NoSuchEntity" in errors(run, "missing")
    assert "no credentials" in errors(run, "nobody")

    push(hub.clone(tmp_path / "clone", "maria"), "feature", {"x": "1"})
    hub.open("maria", "feature", "T")
    (run,) = hub.pump()
    assert run.job("preview").conclusion == "success", errors(run, "preview")
    # A pull request cannot reach prod, whatever its workflow says.
    assert "not allowed to deploy to prod" in errors(run, "prod")
    assert "the policy wants 'repo:acme/mlops:environment:prod'" in errors(run, "dev")
