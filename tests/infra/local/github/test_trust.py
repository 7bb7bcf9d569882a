"""A role's trust policy against a job's OIDC subject."""

from __future__ import annotations

from typing import Any

import pytest

from infra.local.github.trust import refusal, subject

PROVIDER = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
PROD = "repo:acme/mlops:environment:prod"
CLAIMS = {"aud": "sts.amazonaws.com", "sub": PROD, "repository": "acme/mlops"}


def policy(sub: Any = PROD, operator: str = "StringEquals", **changes: Any) -> dict[str, Any]:
    prefix = "token.actions.githubusercontent.com"
    statement = {
        "Effect": "Allow",
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": PROVIDER},
        "Condition": {"StringEquals": {f"{prefix}:aud": "sts.amazonaws.com"}, operator: {f"{prefix}:sub": sub}},
    }
    if operator == "StringEquals":
        statement["Condition"] = {"StringEquals": {f"{prefix}:aud": "sts.amazonaws.com", f"{prefix}:sub": sub}}
    return {"Version": "2012-10-17", "Statement": [{**statement, **changes}]}


@pytest.mark.parametrize(
    ("trusting", "words"),
    [
        (policy(), ""),
        (policy(sub=["repo:acme/mlops:environment:dev", PROD]), ""),
        (policy(sub="repo:acme/*:environment:prod", operator="StringLike"), ""),
        (policy(sub="repo:acme/mlops:environment:dev"), "sub is 'repo:acme/mlops:environment:prod'"),
        (policy(sub="repo:acme/mlops:*"), "sub is"),
        (policy(sub="repo:acme/mlops:[pe]*", operator="StringLike"), "sub is"),
        (policy(sub=PROD, operator="StringNotLike"), "not known here"),
        (policy(Principal={"AWS": "*"}), "principal"),
        (policy(Principal="*"), "principal"),
        (policy(Action="sts:AssumeRole"), "not about"),
        (policy(Effect="Deny"), "Deny"),
        ({"Statement": [*policy()["Statement"], *policy(Effect="Deny")["Statement"]]}, "Deny"),
        ({"Statement": [*policy(Effect="Deny")["Statement"], *policy()["Statement"]]}, "Deny"),
        ({}, "no statement"),
    ],
)
def test_a_role_lets_in_whom_its_policy_names_and_nobody_else(trusting: dict[str, Any], words: str) -> None:
    found = refusal(trusting, CLAIMS)
    assert (words in found) if words else (found == "")


def test_another_audience_is_refused() -> None:
    assert "aud is 'else'" in refusal(policy(), {**CLAIMS, "aud": "else"})


def test_the_subject_has_the_form_that_github_signs() -> None:
    ref = "refs/heads/main"
    assert subject("acme/mlops", environment="prod", event="push", ref=ref) == PROD
    assert subject("acme/mlops", environment="", event="pull_request", ref="x") == "repo:acme/mlops:pull_request"
    assert subject("acme/mlops", environment="", event="push", ref=ref) == "repo:acme/mlops:ref:refs/heads/main"
    with_ids = subject("acme/mlops", environment="prod", event="push", ref=ref, owner_id=7, repository_id=9)
    assert with_ids == "repo:acme@7/mlops@9:environment:prod"
