"""Tests of the exchange of a GitHub token for a role."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from laptop.aws.access.web_identity import LONGEST_TOKEN, published_keys
from laptop.aws.account import ISSUERS, Account
from laptop.github.oidc_issuer import LIFETIME_SECONDS, Issuer
from laptop.github.trust import AUDIENCE, ISSUER

PROVIDER = f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"
PROD = "repo:acme/mlops:environment:prod"
CLAIMS = {"sub": PROD, "aud": AUDIENCE}
_NUMBER = itertools.count(1)

Exchange = Callable[..., Any]


def trust(*, also: tuple[dict[str, Any], ...] = (), condition: Any = None, **changes: Any) -> dict[str, Any]:
    exact = {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": PROD}}
    statement = {
        "Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": PROVIDER},
        "Condition": exact if condition is None else condition,
    }
    return {"Version": "2012-10-17", "Statement": [{**statement, **changes}, *also]}


def subject(value: Any, operator: str = "StringEquals") -> dict[str, Any]:
    """Return a condition on the subject only."""
    return {operator: {f"{ISSUER}:sub": value}}


DENY = {"Effect": "Deny", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": PROVIDER}}


@pytest.fixture(scope="module")
def issuer(account: Account, provider: Any, tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Return GitHub's issuer, registered as an identity provider of the account."""
    client = provider.cloud.client("iam")
    client.create_open_id_connect_provider(Url=f"https://{ISSUER}", ClientIDList=[AUDIENCE], ThumbprintList=["0" * 40])
    return Issuer(tmp_path_factory.mktemp("github"), published_keys(account.home / ISSUERS, ISSUER))


@pytest.fixture
def exchange(account: Account, client: Callable[[str], Any]) -> Exchange:
    """Return a function that creates a role with a trust policy and exchanges a token for it, without credentials."""
    sts = boto3.client(
        "sts",
        endpoint_url=account.endpoint,
        region_name=account.region,
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def ask(token: str, trusting: Any = None, **more: Any) -> Any:
        name = f"from-github-{next(_NUMBER)}"
        document = json.dumps(trusting or trust())
        arn = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        parameters = {"RoleArn": arn, "RoleSessionName": "run", "WebIdentityToken": token, **more}
        return sts.assume_role_with_web_identity(**parameters)

    return ask


def refused(code: str, words: str = "") -> Any:
    return pytest.raises(ClientError, match=rf"\({code}\).*{words}")


def test_a_token_is_exchanged_for_the_role_that_trusts_its_subject(
    issuer: Issuer, exchange: Exchange, account: Account
) -> None:
    answer = exchange(issuer.token(CLAIMS))
    key = answer["Credentials"]
    session = boto3.client(
        "sts",
        endpoint_url=account.endpoint,
        region_name=account.region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
    )
    assert session.get_caller_identity()["Arn"] == answer["AssumedRoleUser"]["Arn"]
    assert "assumed-role/from-github-" in answer["AssumedRoleUser"]["Arn"]


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "repo:acme/other:environment:prod"},
        {"sub": "repo:mallory/mlops:environment:prod"},
        {"sub": "repo:acme/mlops:environment:dev"},
        {"sub": "repo:acme/mlops:environment:prod-2"},
        {"sub": "repo:acme/mlops:ref:refs/heads/main"},
        {"sub": "repo:acme/mlops:pull_request"},
        {"sub": "repo:acme@7/mlops@9:environment:prod"},
    ],
    ids=lambda claims: str(claims["sub"]),
)
def test_another_subject_is_refused_and_named(issuer: Issuer, exchange: Exchange, claims: dict[str, str]) -> None:
    with refused("AccessDenied", claims["sub"].replace(":", ".")):
        exchange(issuer.token({**CLAIMS, **claims}))


@pytest.mark.parametrize(
    "trusting",
    [
        trust(condition=subject(["repo:acme/mlops:environment:dev", PROD])),
        trust(condition=subject("repo:acme/*:environment:prod", "StringLike")),
        trust(also=({**DENY, "Condition": subject("repo:acme/mlops:environment:dev")},)),
    ],
)
def test_a_role_may_trust_more_than_one_subject(issuer: Issuer, exchange: Exchange, trusting: Any) -> None:
    assert exchange(issuer.token(CLAIMS), trusting)


@pytest.mark.parametrize(
    "trusting",
    [
        trust(condition=subject("repo:acme/mlops:*")),
        trust(condition=subject("repo:acme/mlops:[pe]*", "StringLike")),
        trust(condition={"StringEquals": {f"{ISSUER}:sub": PROD, f"{ISSUER}:actor": "ada"}}),
        trust(condition={"StringEquals": {"aws:PrincipalArn": PROD}}),
        trust(Principal={"AWS": "*"}),
        trust(Principal={"AWS": "arn:aws:iam::123456789012:root"}),
        trust(Principal={"Federated": PROVIDER.replace("githubusercontent", "elsewhere")}),
        trust(Principal="*"),
        trust(Action="sts:AssumeRole"),
        trust(Effect="Deny"),
        trust(also=(DENY,)),
        trust(also=({**DENY, "Principal": "*"},)),
        trust(also=({**DENY, "Principal": {"AWS": "*"}},)),
    ],
)
def test_a_role_refuses_subjects_that_its_policy_does_not_name(
    issuer: Issuer, exchange: Exchange, trusting: Any
) -> None:
    with refused("AccessDenied", "resource-based policy"):
        exchange(issuer.token(CLAIMS), trusting)


def test_a_token_for_another_audience_is_refused(issuer: Issuer, exchange: Exchange) -> None:
    with refused("InvalidIdentityToken", "audience"):
        exchange(issuer.token({**CLAIMS, "aud": "https://github.com/acme"}))


def test_an_expired_or_future_token_is_refused(issuer: Issuer, exchange: Exchange) -> None:
    now = time.time()
    with refused("ExpiredTokenException"):
        exchange(issuer.token(CLAIMS, now=now - LIFETIME_SECONDS - 1))
    with refused("InvalidIdentityToken", "not valid yet"):
        exchange(issuer.token(CLAIMS, now=now + 3600))


def test_a_token_signed_with_another_key_is_refused(issuer: Issuer, exchange: Exchange, tmp_path: Path) -> None:
    issuer.token(CLAIMS)  # the first token publishes the keys, in any order of the tests
    forger = Issuer(tmp_path, tmp_path / "published.json")
    with refused("InvalidIdentityToken"):
        exchange(forger.token(CLAIMS))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header, claims, signature: f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
        lambda header, claims, signature: f"{header}.{claims}.",
        lambda header, claims, signature: f"{header}.{claims}",
        lambda header, claims, signature: f"eyJhbGciOiJub25lIn0.{claims}.",  # {"alg":"none"}
        lambda header, claims, signature: f"{header}.eyJpc3MiOjF9.{signature}",  # {"iss":1}
        lambda header, claims, signature: f"{header}.W10.{signature}",  # []
        lambda header, claims, signature: "no token",
        lambda header, claims, signature: "x" * (LONGEST_TOKEN + 1),
        lambda header, claims, signature: "{}.{}.{}",
    ],
)
def test_an_unsigned_or_malformed_token_is_refused(
    issuer: Issuer, exchange: Exchange, spoil: Callable[..., str]
) -> None:
    with refused("InvalidIdentityToken"):
        exchange(spoil(*issuer.token(CLAIMS).split(".")))


def test_a_token_of_one_issuer_is_not_valid_for_another(
    issuer: Issuer, exchange: Exchange, client: Callable[[str], Any], account: Account
) -> None:
    from joserfc import jwt

    key = issuer._key()
    stranger = {**CLAIMS, "iss": "https://stranger.example", "iat": time.time(), "exp": time.time() + 60}
    token = jwt.encode({"alg": "ES256", "kid": key.kid}, stranger, key, algorithms=["ES256"])
    with refused("InvalidIdentityToken", "No OpenIDConnect provider"):
        exchange(token)
    client("iam").create_open_id_connect_provider(
        Url="https://stranger.example", ClientIDList=[AUDIENCE], ThumbprintList=["0" * 40]
    )
    with refused("IDPCommunicationError"):
        exchange(token)


def test_a_request_with_two_roles_gets_neither(
    issuer: Issuer, exchange: Exchange, client: Callable[[str], Any], account: Account
) -> None:
    import urllib.error
    import urllib.request
    from urllib.parse import urlencode

    def role(name: str, sub: str) -> str:
        document = json.dumps(trust(condition=subject(sub)))
        return str(client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"])

    mine, theirs = role("mine", PROD), role("theirs", "repo:acme/mlops:environment:other")
    common = [("Action", "AssumeRoleWithWebIdentity"), ("Version", "2011-06-15"), ("RoleSessionName", "run")]
    token = ("WebIdentityToken", issuer.token(CLAIMS))

    def post(*arns: str) -> str:
        body = urlencode([*common, token, *(("RoleArn", arn) for arn in arns)]).encode()
        with urllib.request.urlopen(account.endpoint, body) as answer:
            return str(answer.read().decode())

    assert "assumed-role/mine/" in post(mine)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        post(theirs)
    for both in ((mine, theirs), (theirs, mine)):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(*both)


def test_the_private_key_is_private_and_not_published(tmp_path: Path) -> None:
    published = tmp_path / "account" / "keys.json"
    folder = tmp_path / "github"
    folder.mkdir()
    first = Issuer(folder, published).token(CLAIMS)
    (key,) = json.loads(published.read_text())["keys"]
    assert "d" not in key
    private = folder / "oidc-key.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in private.read_text()
    assert first.split(".")[0] == Issuer(folder, published).token(CLAIMS).split(".")[0]  # the same key again


def test_a_new_key_is_published(tmp_path: Path) -> None:
    published = tmp_path / "keys.json"
    Issuer(tmp_path, published).token(CLAIMS)
    before = published.read_text()
    (tmp_path / "oidc-key.pem").unlink()
    Issuer(tmp_path, published).token(CLAIMS)
    assert published.read_text() != before
