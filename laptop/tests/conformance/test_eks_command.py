"""Stand-in for `aws eks`: which token a caller gets."""

from __future__ import annotations

import pytest

from laptop.conformance.eks_command import token_of

OPERATOR = "arn:aws:iam::123456789012:user/operator"
DEPLOY = "arn:aws:sts::123456789012:assumed-role/mlops-deploy-dev/run-1"
ENTRIES = {"arn:aws:iam::123456789012:role/bootstrap/mlops-deploy-dev": ["mlops:deploy:dev"]}
TOKENS = {"mlops:deploy:dev": "theirs"}


def test_a_role_gets_the_token_of_its_group_and_the_operator_the_administrators() -> None:
    assert token_of(DEPLOY, ENTRIES, TOKENS, "administrator") == "theirs"
    assert token_of(OPERATOR, ENTRIES, TOKENS, "administrator") == "administrator"


def test_a_role_without_an_access_entry_gets_a_token_that_no_server_knows() -> None:
    found = token_of(DEPLOY.replace("dev", "prod"), ENTRIES, TOKENS, "administrator")
    assert found not in ("administrator", "theirs")


def test_a_cluster_without_tokens_for_groups_knows_the_administrator_only() -> None:
    assert token_of(DEPLOY, ENTRIES, {}, "administrator") == "administrator"


@pytest.mark.parametrize("groups", [["mlops:preview"], ["mlops:deploy:dev", "system:masters"]])
def test_groups_that_no_token_has_are_an_error(groups: list[str]) -> None:
    with pytest.raises(LookupError, match="groups of mlops-deploy-dev: expected one of mlops:deploy:dev, found "):
        token_of(DEPLOY, {next(iter(ENTRIES)): groups}, TOKENS, "administrator")
