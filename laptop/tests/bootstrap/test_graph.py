"""What the bootstrap makes, and how it fits to what the main program makes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.estate import STATE_ALIAS, Estate
from infra.bootstrap.permissions import bounds
from infra.environment import Environment, Place
from infra.policies import PlannedResource, violations
from infra.policies.iam import policies_of
from laptop.aws.access.policy import Caller, Grants, Need, refusal
from laptop.tests.bootstrap.conftest import Ready
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.infra.conftest import ENVIRONMENTS
from tests.infra.recording import ACCOUNT, REGION, Recording
from tests.sample_project import PROJECT

ROLE = "aws:iam/role:Role"
POLICY = "aws:iam/rolePolicy:RolePolicy"
BUCKET = "aws:s3/bucket:Bucket"
LONGEST_POLICIES = 10_240  # characters of all inline policies of a role; IAM's quota
ALL = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def named(ready: Ready, type_: str) -> dict[str, PlannedResource]:
    return {one.name: one for one in ready.graph if one.type == type_}


def estate(**changes: Any) -> Estate:
    """The account as the tests' project declares it."""
    project = Project(PROJECT)
    terms = AccountConfig(repository="acme/mlops", owner="us", cost_centre="1")
    where = (ACCOUNT, REGION, "aws")
    environments = []
    for name in project.environments:
        config = project.stack(name).config.environment
        environments.append(Environment(name, "mlops", config, *where))
    place = Place("account", "mlops", terms, *where)
    return replace(Estate(place, "mlops", tuple(environments)), **changes)


def test_every_rule_holds_over_what_the_bootstrap_makes(ready: Ready) -> None:
    assert [str(violation) for violation in violations(ready.graph)] == []


def test_the_state_bucket_is_there_to_be_judged_by_every_rule_about_buckets(ready: Ready) -> None:
    buckets = {bucket.at("bucket") for bucket in named(ready, BUCKET).values()}
    assert ready.outputs["state_bucket"] in buckets
    assert all(bucket.protect for bucket in named(ready, BUCKET).values())
    without_settings = [one for one in ready.graph if not one.type.startswith("aws:s3/bucket") or one.type == BUCKET]
    broken = {violation.rule for violation in violations(without_settings)}
    assert broken >= {"s3-public-access-blocked", "s3-versioned", "s3-tls-only", "s3-lifecycle", "s3-access-logged"}


def test_the_exemptions_are_the_bucket_of_access_logs_and_one_small_policy_of_each_deploy_role(ready: Ready) -> None:
    held = [replace(one, props={k: v for k, v in one.props.items() if k != "exemptions"}) for one in ready.graph]
    found = {(violation.rule, violation.resource.split()[-1]) for violation in violations(held)}
    openings = {("iam-no-escalation", f"deploy-{environment}-opening") for environment in ENVIRONMENTS}
    logs = {("s3-encrypted-with-customer-key", "state-logs"), ("s3-access-logged", "state-logs")}
    assert found == openings | logs


def test_the_roles_are_one_an_environment_and_one_for_previews_and_all_else_is_outputs(ready: Ready) -> None:
    made = {str(role.at("name")) for role in named(ready, ROLE).values()}
    assert made == {"mlops-preview", *(f"mlops-deploy-{environment}" for environment in ENVIRONMENTS)}
    assert set(ready.outputs["deploy_roles"]) == set(ENVIRONMENTS)
    assert ready.outputs["preview_role"].endswith("/mlops-preview")
    assert ready.outputs["backend_url"] == f"s3://{ready.outputs['state_bucket']}?region=eu-west-1"
    variables = ready.outputs["variables"]
    assert variables["repository"]["PULUMI_BACKEND_URL"] == ready.outputs["backend_url"]
    assert variables["prod"] == {"AWS_DEPLOY_ROLE": ready.outputs["deploy_roles"]["prod"]}
    assert variables["preview"] == {"AWS_PREVIEW_ROLE": ready.outputs["preview_role"]}


def test_every_role_stays_below_the_quota_of_its_policies(ready: Ready) -> None:
    from infra.policies.graph import Graph

    for role in named(ready, ROLE).values():
        documents = [json.loads(document) for _, document in policies_of(Graph(ready.graph), role)]
        assert len(documents) >= 3
        assert sum(len(json.dumps(one, separators=(",", ":"))) for one in documents) < LONGEST_POLICIES


def test_the_key_of_the_state_has_the_name_by_which_stacks_know_it(ready: Ready) -> None:
    (alias,) = named(ready, "aws:kms/alias:Alias").values()
    assert alias.at("name") == STATE_ALIAS


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_role_of_the_main_program_carries_its_environment_s_boundary(
    graphs: dict[str, Recording], environment: str
) -> None:
    account = estate()
    (here,) = [one for one in account.environments if one.name == environment]
    for role in graphs[environment].of_type(ROLE).values():
        assert role.at("permissionsBoundary") == account.boundary_arn(here)
        assert str(role.at("name")).startswith(f"{here.prefix}-")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_boundary_takes_nothing_from_a_role_that_the_program_gives_it(
    graphs: dict[str, Recording], environment: str
) -> None:
    account = estate()
    (here,) = [one for one in account.environments if one.name == environment]
    boundary = {"Statement": bounds(here)}
    caller = Caller("arn:aws:iam::1:role/x", frozenset(), ACCOUNT)
    context = {"aws:resourcetag/environment": (environment,)}
    checked = 0
    for role in graphs[environment].of_type(POLICY):
        for statement in graphs[environment].policy(role):
            for action in statement["Action"]:
                for resource in statement["Resource"]:
                    need = Need(action, resource.replace("*", "x"), context)
                    assert refusal(caller, Grants((ALL,), boundary=boundary), need, {}) is None, (role, action)
                    checked += 1
    assert checked > 10


def test_a_role_is_passed_to_eks_pod_identity_only_and_only_within_its_environment(ready: Ready) -> None:
    from infra.policies.graph import Graph

    role = named(ready, ROLE)["deploy-dev"]
    documents = tuple(json.loads(document) for _, document in policies_of(Graph(ready.graph), role))
    caller = Caller("arn:aws:iam::1:role/x", frozenset(), "1")

    def passes(name: str, service: str) -> bool:
        arn = f"arn:aws:iam::{ready.account.account}:role/{name}"
        need = Need("iam:PassRole", arn, {"iam:passedtoservice": (service,)})
        return refusal(caller, Grants(documents), need, {}) is None

    assert passes("mlops-dev-serve-fraud", "pods.eks.amazonaws.com")
    assert not passes("mlops-dev-serve-fraud", "ec2.amazonaws.com")
    assert not passes("mlops-prod-serve-fraud", "pods.eks.amazonaws.com")
    assert not passes("bootstrap/mlops-deploy-dev", "pods.eks.amazonaws.com")
    assert not passes("bootstrap/mlops-deploy-prod", "pods.eks.amazonaws.com")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("dev", "dev-eu"), "begin alike"),
        (("dev-eu", "dev"), "begin alike"),
        (("preview",), "begin alike"),
        (("account",), "begin alike"),
    ],
)
def test_environments_whose_names_begin_alike_are_refused(names: tuple[str, ...], words: str) -> None:
    pattern = estate().environments[0]
    with pytest.raises(MlopsError, match=words):
        estate(environments=tuple(replace(pattern, name=name) for name in names))


@pytest.mark.parametrize("named_", [None, "another", "arn:aws:iam::111122223333:policy/mlops-dev-boundary"])
def test_an_environment_whose_roles_would_carry_another_boundary_is_refused(named_: str | None) -> None:
    first = estate().environments[0]
    config = first.config.model_copy(update={"permissions_boundary": named_})
    with pytest.raises(MlopsError, match=r"Pulumi\.dev\.yaml has the permissions boundary") as refused:
        estate(environments=(replace(first, config=config),))
    assert refused.value.fix == "permissions_boundary: bootstrap/mlops-dev-boundary"


@pytest.mark.parametrize("repository", ["acme", "acme/mlops/more", "acme/*", "*/mlops", "acme/mlops:environment:prod"])
def test_a_repository_that_is_no_exact_name_is_refused(repository: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        AccountConfig(repository=repository, owner="us", cost_centre="1")


def test_the_subject_carries_ids_where_github_puts_them_in() -> None:
    from laptop.github import trust

    ids = {"owner": 7, "repository": 9}
    terms = AccountConfig.model_validate(
        {"repository": "acme/mlops", "repository_ids": ids, "owner": "us", "cost_centre": "1"}
    )
    asked = trust.subject("acme/mlops", environment="prod", event="push", ref="x", owner_id=7, repository_id=9)
    assert terms.subject("prod") == asked
    plain = terms.model_copy(update={"repository_ids": None})
    assert plain.subject("prod") == trust.subject("acme/mlops", environment="prod", event="push", ref="x")
