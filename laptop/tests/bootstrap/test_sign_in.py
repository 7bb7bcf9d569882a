"""Sign-in of GitHub jobs, with the bootstrap's roles in the laptop's account."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.github.oidc_issuer import LIFETIME_SECONDS, Issuer
from laptop.github.trust import AUDIENCE
from laptop.tests.bootstrap.conftest import REPOSITORY, Ready, subject
from tests.infra.conftest import ENVIRONMENTS

pytestmark = pytest.mark.slow

ROLES = (*ENVIRONMENTS, "preview", "images")


@pytest.mark.parametrize("name", ROLES)
def test_a_job_can_assume_only_its_environment_s_role(ready: Ready, name: str) -> None:
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
def test_no_other_subject_can_assume_a_role(ready: Ready, name: str, other: str) -> None:
    with pytest.raises(ClientError, match=r"\(AccessDenied\)"):
        ready.sign_in(name, other.format(REPOSITORY, name))


def test_a_token_for_another_audience_is_refused(ready: Ready) -> None:
    with pytest.raises(ClientError, match=r"\(InvalidIdentityToken\).*audience"):
        ready.sign_in("dev", aud="https://github.com/acme")


def test_an_expired_token_is_refused(ready: Ready) -> None:
    before = time.time() - LIFETIME_SECONDS - 1
    token = ready.issuer.token({"sub": subject("dev"), "aud": AUDIENCE}, now=before)
    with pytest.raises(ClientError, match=r"\(ExpiredTokenException\)"):
        ready.sign_in("dev", token=token)


def test_a_forged_token_is_refused(ready: Ready, tmp_path: Path) -> None:
    forged = Issuer(tmp_path, tmp_path / "keys.json").token({"sub": subject("dev"), "aud": AUDIENCE})
    with pytest.raises(ClientError, match=r"\(InvalidIdentityToken\)"):
        ready.sign_in("dev", token=forged)


@pytest.mark.parametrize("name", ROLES)
def test_no_caller_within_the_account_can_assume_a_role(ready: Ready, name: str) -> None:
    with pytest.raises(ClientError, match="no resource-based policy allows the sts:AssumeRole"):
        ready.operator["sts"].assume_role(RoleArn=ready.role(name), RoleSessionName="operator")


@pytest.mark.parametrize("name", ROLES)
def test_a_trust_policy_is_one_exact_statement(ready: Ready, name: str) -> None:
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
