"""The bootstrap's policies, judged by IAM's evaluation logic without any calls."""

from __future__ import annotations

import json

import pytest

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.permissions import boundary_statements
from infra.policies.iam import policies_of
from infra.policies.resource_graph import Graph
from laptop.aws.access.policy import Caller, Grants, Need, refusal
from laptop.github import trust
from tests.infra.conftest import ENVIRONMENTS
from tests.infra.recording import ACCOUNT, Recording
from tests.infra.test_bootstrap import layout

pytestmark = pytest.mark.slow

POLICY = "aws:iam/rolePolicy:RolePolicy"
EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_boundary_allows_all_that_the_program_grants(graphs: dict[str, Recording], environment: str) -> None:
    (here,) = [one for one in layout().environments if one.name == environment]
    boundary = {"Statement": boundary_statements(here)}
    caller = Caller("arn:aws:iam::1:role/x", frozenset(), ACCOUNT)
    context = {"aws:resourcetag/environment": (environment,), "cloudwatch:namespace": (here.prefix,)}
    checked = 0
    for role in graphs[environment].of_type(POLICY):
        for statement in graphs[environment].policy(role):
            for action in statement["Action"]:
                for resource in statement["Resource"]:
                    need = Need(action, resource.replace("*", "x"), context)
                    assert refusal(caller, Grants((EVERYTHING,), boundary=boundary), need, {}) is None, (role, action)
                    checked += 1
    assert checked > 10


def test_a_role_is_passed_only_to_pod_identity_and_within_its_environment(bootstrap: Recording) -> None:
    role = bootstrap.one("aws:iam/role:Role", "deploy-dev")
    documents = tuple(json.loads(document) for _, document in policies_of(Graph(bootstrap.resources), role))
    caller = Caller("arn:aws:iam::1:role/x", frozenset(), "1")

    def passes(name: str, service: str) -> bool:
        arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
        need = Need("iam:PassRole", arn, {"iam:passedtoservice": (service,)})
        return refusal(caller, Grants(documents), need, {}) is None

    assert passes("mlops-dev-serve-fraud", "pods.eks.amazonaws.com")
    assert not passes("mlops-dev-serve-fraud", "ec2.amazonaws.com")
    assert not passes("mlops-prod-serve-fraud", "pods.eks.amazonaws.com")
    assert not passes("bootstrap/mlops-deploy-dev", "pods.eks.amazonaws.com")
    assert not passes("bootstrap/mlops-deploy-prod", "pods.eks.amazonaws.com")


def test_the_subject_carries_ids_if_github_s_tokens_do() -> None:
    ids = {"owner": 7, "repository": 9}
    config = AccountConfig.model_validate(
        {"repository": "acme/mlops", "repository_ids": ids, "owner": "us", "cost_centre": "1"}
    )
    expected = trust.subject("acme/mlops", environment="prod", event="push", ref="x", owner_id=7, repository_id=9)
    assert config.subject("prod") == expected
    plain = config.model_copy(update={"repository_ids": None})
    assert plain.subject("prod") == trust.subject("acme/mlops", environment="prod", event="push", ref="x")
