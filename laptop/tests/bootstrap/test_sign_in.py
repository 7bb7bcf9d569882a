"""Who gets in from GitHub: asked of the emulated account, with the roles as the bootstrap made them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.github.oidc import LIFETIME_SECONDS, Issuer
from laptop.github.trust import AUDIENCE
from laptop.tests.bootstrap.conftest import REPOSITORY, Ready, subject
from tests.infra.conftest import ENVIRONMENTS

PREVIEW = "preview"
ROLES = (*ENVIRONMENTS, PREVIEW)


@pytest.mark.parametrize("name", ROLES)
def test_a_job_gets_the_role_of_its_own_environment_and_no_other(ready: Ready, name: str) -> None:
    identity = ready.sign_in(name)["sts"].get_caller_identity()
    assert identity["Arn"].split("/")[1] == ready.role(name).rpartition("/")[2]
    for other in set(ROLES) - {name}:
        with pytest.raises(ClientError, match=r"\(AccessDenied\)"):
            ready.sign_in(other, subject(name))


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize(
    "other",
    [
        "repo:{0}-fork:environment:{1}",
        "repo:mallory/mlops:environment:{1}",
        "repo:{0}:environment:{1}-2",
        "repo:{0}:environment:{1}:extra",
        "repo:{0}:environment:*",
        "repo:{0}:ref:refs/heads/main",
        "repo:{0}:ref:refs/heads/{1}",
        "repo:{0}:ref:refs/tags/environment:{1}",
        "repo:{0}:pull_request",
        "repo:acme@7/mlops@9:environment:{1}",
        "REPO:{0}:environment:{1}",
    ],
)
def test_no_other_repository_environment_branch_or_pull_request_gets_a_role(
    ready: Ready, name: str, other: str
) -> None:
    with pytest.raises(ClientError, match=r"\(AccessDenied\)"):
        ready.sign_in(name, other.format(REPOSITORY, name))


def test_a_token_for_another_audience_gets_no_role(ready: Ready) -> None:
    with pytest.raises(ClientError, match=r"\(InvalidIdentityToken\).*audience"):
        ready.sign_in("dev", aud="https://github.com/acme")


def test_an_old_token_gets_no_role(ready: Ready) -> None:
    before = time.time() - LIFETIME_SECONDS - 1
    token = ready.issuer.token({"sub": subject("dev"), "aud": AUDIENCE}, now=before)
    with pytest.raises(ClientError, match=r"\(ExpiredTokenException\)"):
        ready.sign_in("dev", token=token)


def test_a_token_that_github_did_not_sign_gets_no_role(ready: Ready, tmp_path: Path) -> None:
    forged = Issuer(tmp_path, tmp_path / "keys.json").token({"sub": subject("dev"), "aud": AUDIENCE})
    with pytest.raises(ClientError, match=r"\(InvalidIdentityToken\)"):
        ready.sign_in("dev", token=forged)


@pytest.mark.parametrize("name", ROLES)
def test_nobody_within_the_account_can_take_a_role_not_even_its_operator(ready: Ready, name: str) -> None:
    with pytest.raises(ClientError, match="no resource-based policy allows the sts:AssumeRole"):
        ready.operator["sts"].assume_role(RoleArn=ready.role(name), RoleSessionName="operator")


@pytest.mark.parametrize("name", ROLES)
def test_a_trust_policy_is_one_statement_and_names_all_it_means(ready: Ready, name: str) -> None:
    trust: Any = ready.operator["iam"].get_role(RoleName=ready.role(name).rpartition("/")[2])["Role"][
        "AssumeRolePolicyDocument"
    ]
    (statement,) = trust["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::{ready.account.account}:oidc-provider/{issuer}"}
    exact = {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject(name)}
    assert statement["Condition"] == {"StringEquals": exact}
    assert "*" not in json.dumps(trust)
