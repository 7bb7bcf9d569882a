"""Resources of the account's bootstrap, and their fit with the environments."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.layout import STATE_ALIAS, AccountLayout
from infra.policies import violations
from infra.policies.iam import policies_of
from infra.policies.resource_graph import Graph
from infra.scopes import Environment, Scope
from pipelines.declarations.environment import EnvironmentDescriptor, ImageRegistry
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.infra.conftest import ENVIRONMENTS
from tests.infra.recording import ACCOUNT, REGION, Recording, edit, record_bootstrap
from tests.sample_project import PROJECT, ROOT, copy_as_forked

ROLE = "aws:iam/role:Role"
BUCKET = "aws:s3/bucket:Bucket"
REPOSITORY = "aws:ecr/repository:Repository"
REPOSITORY_POLICY = "aws:ecr/repositoryPolicy:RepositoryPolicy"
MANAGED_POLICY = "aws:iam/policy:Policy"
LONGEST_POLICIES = 10_240  # characters of all inline policies of a role; IAM's quota
LONGEST_MANAGED_POLICY = 6_144
MOST_MANAGED_POLICIES = 10


def layout(**changes: Any) -> AccountLayout:
    """Return the layout of the test project's account."""
    project = Project(PROJECT)
    config = AccountConfig(repository="acme/mlops", owner="us", cost_centre="1")
    where = (ACCOUNT, REGION, "aws")
    environments = tuple(
        Environment(name, "mlops", project.stack(name).config.environment, *where) for name in project.environments
    )
    return replace(AccountLayout(Scope("account", "mlops", config, *where), "mlops", environments), **changes)


def test_the_bootstrap_breaks_no_rule(bootstrap: Recording) -> None:
    assert [str(violation) for violation in violations(bootstrap.resources)] == []


@pytest.mark.parametrize("removed", ["BucketPublicAccessBlock", "BucketPolicy", "BucketVersioning",
                                     "BucketServerSideEncryptionConfiguration", "BucketLifecycleConfiguration",
                                     "BucketLogging", "LifecyclePolicy"])  # fmt: skip
def test_a_bootstrap_without_a_safeguard_is_refused(bootstrap: Recording, removed: str) -> None:
    left = [resource for resource in bootstrap.resources if not resource.type.endswith(f":{removed}")]
    assert violations(left)


def test_an_enterprise_server_issues_the_tokens_that_the_roles_trust(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    issuer = "github.acme.example/_services/token"
    file = project / "infra" / "bootstrap" / "Pulumi.account.yaml"
    edit(file, "config", "mlops-bootstrap:account", "issuer", value=issuer)
    recorded = record_bootstrap(project)
    (provider,) = recorded.of_type("aws:iam/openIdConnectProvider:OpenIdConnectProvider").values()
    assert provider.at("url") == f"https://{issuer}"
    for role in recorded.of_type(ROLE).values():
        (statement,) = json.loads(role.at("assumeRolePolicy"))["Statement"]
        assert set(statement["Condition"]["StringEquals"]) == {f"{issuer}:aud", f"{issuer}:sub"}


def test_an_identity_provider_of_another_issuer_is_refused() -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com.example"
    with pytest.raises(ValueError, match="expected an ARN that ends in :oidc-provider/"):
        AccountConfig(repository="acme/mlops", owner="us", cost_centre="1", identity_provider=arn)


def test_state_and_images_are_protected(bootstrap: Recording) -> None:
    stateful = [*bootstrap.of_type(BUCKET).values(), *bootstrap.of_type(REPOSITORY).values()]
    assert {resource.name for resource in stateful} == {"state", "state-logs", "training", "serving"}
    assert all(resource.protect for resource in stateful)
    assert not any(resource.at("forceDelete") for resource in bootstrap.of_type(REPOSITORY).values())


def test_only_the_log_bucket_and_one_policy_of_each_deploy_role_are_exempt(bootstrap: Recording) -> None:
    without = [
        replace(one, props={key: value for key, value in one.props.items() if key != "exemptions"})
        for one in bootstrap.resources
    ]
    found = {(violation.rule, violation.resource.split()[-1]) for violation in violations(without)}
    access = {("iam-no-escalation", f"deploy-{environment}-access") for environment in ENVIRONMENTS}
    logs = {("s3-encrypted-with-customer-key", "state-logs"), ("s3-access-logged", "state-logs")}
    assert found == access | logs


def test_there_is_a_role_per_environment_one_for_previews_and_one_for_images(bootstrap: Recording) -> None:
    names = {str(role.at("name")) for role in bootstrap.of_type(ROLE).values()}
    assert names == {"mlops-preview", "mlops-images", *(f"mlops-deploy-{name}" for name in ENVIRONMENTS)}
    outputs = bootstrap.outputs
    assert set(outputs["deploy_roles"]) == set(ENVIRONMENTS)
    assert outputs["backend_url"] == f"s3://{outputs['state_bucket']}?region={REGION}"
    assert outputs["variables"] == {
        "repository": {"AWS_REGION": REGION, "MLOPS_TARGET": "aws"},
        "preview": {"AWS_PREVIEW_ROLE": outputs["preview_role"]},
        "images": {"AWS_IMAGES_ROLE": outputs["images_role"]},
        **{name: {"AWS_DEPLOY_ROLE": outputs["deploy_roles"][name]} for name in ENVIRONMENTS},
    }


def test_the_policies_of_every_role_fit_the_quota(bootstrap: Recording) -> None:
    for role in bootstrap.of_type(ROLE).values():
        inline: list[int] = []
        managed: list[int] = []
        for holder, document in policies_of(Graph(bootstrap.resources), role):
            size = len(json.dumps(json.loads(document), separators=(",", ":")))
            (managed if holder.type == MANAGED_POLICY else inline).append(size)
        assert sum(inline) <= LONGEST_POLICIES
        assert 0 < len(managed) <= MOST_MANAGED_POLICIES
        assert max(managed) <= LONGEST_MANAGED_POLICY


def test_a_deploy_role_can_neither_change_nor_detach_its_policies(bootstrap: Recording) -> None:
    own = {str(policy.at("arn")) for policy in bootstrap.of_type(MANAGED_POLICY).values()}
    assert len(own) > len(ENVIRONMENTS)
    for role in bootstrap.of_type(ROLE).values():
        documents = [json.loads(document) for _, document in policies_of(Graph(bootstrap.resources), role)]
        actions = {action for one in documents for statement in one["Statement"] for action in statement["Action"]}
        assert not [action for action in actions if action.startswith("iam:") and "Polic" in action
                    and action not in ("iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:GetRolePolicy",
                                       "iam:ListRolePolicies", "iam:ListAttachedRolePolicies")]  # fmt: skip


def test_only_the_images_role_can_change_the_registry(bootstrap: Recording) -> None:
    for role in bootstrap.of_type(ROLE).values():
        documents = [json.loads(document) for _, document in policies_of(Graph(bootstrap.resources), role)]
        actions = {action for one in documents for statement in one["Statement"] for action in statement["Action"]}
        touched = {action for action in actions if action.startswith("ecr:")}
        if role.name.startswith(("deploy-", "preview")):
            assert touched == {"ecr:BatchGetImage", "ecr:DescribeImageScanFindings", "ecr:DescribeImages"}
        elif role.name == "images":
            assert actions == touched
            assert not [action for action in touched if "Delete" in action or "Policy" in action]
        else:
            assert touched == set()


def test_every_environment_pulls_from_the_account_repositories(
    bootstrap: Recording, graphs: dict[str, Recording]
) -> None:
    names = {resource.at("name") for resource in bootstrap.of_type(REPOSITORY).values()}
    assert names == {"mlops/training", "mlops/serving"}
    for graph in graphs.values():
        descriptor = EnvironmentDescriptor.from_output(graph.outputs["descriptor"], "any")
        repositories = descriptor.repositories
        pulled = {url.partition("/")[2] for url in (repositories.training, repositories.serving)}
        assert pulled == names


def test_no_other_account_may_pull_unless_it_is_configured(bootstrap: Recording) -> None:
    assert bootstrap.of_type(REPOSITORY_POLICY) == {}


def test_a_configured_account_may_pull_and_judge_images_and_nothing_else(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    file = project / "infra" / "bootstrap" / "Pulumi.account.yaml"
    edit(file, "config", "mlops-bootstrap:account", "pull_accounts", value=["444455556666"])
    bootstrap = record_bootstrap(project)
    assert [str(violation) for violation in violations(bootstrap.resources)] == []
    policies = bootstrap.of_type(REPOSITORY_POLICY)
    assert set(policies) == {"training", "serving"}
    for policy in policies.values():
        (statement,) = json.loads(policy.at("policy"))["Statement"]
        assert statement["Principal"] == {"AWS": ["arn:aws:iam::444455556666:root"]}
        assert statement["Action"] == [
            "ecr:BatchGetImage",
            "ecr:DescribeImageScanFindings",
            "ecr:DescribeImages",
            "ecr:GetDownloadUrlForLayer",
        ]


def test_an_environment_can_pull_from_another_account_and_region() -> None:
    first = layout().environments[0]
    registry = ImageRegistry(account="444455556666", region="us-east-1")
    config = first.config.model_copy(update={"image_registry": registry})
    moved = replace(first, config=config)
    assert moved.image_repository("serving") == "444455556666.dkr.ecr.us-east-1.amazonaws.com/mlops/serving"
    assert layout(environments=(moved,)).environments == (moved,)


def test_an_environment_in_another_region_must_name_the_registry_region() -> None:
    first = layout().environments[0]
    with pytest.raises(MlopsError, match=r"expected the region eu-west-1 .*, found us-east-1") as refused:
        layout(environments=(replace(first, region="us-east-1"),))
    assert refused.value.fix == "image_registry: {region: eu-west-1}"
    named = first.config.model_copy(update={"image_registry": ImageRegistry(region="eu-west-1")})
    assert layout(environments=(replace(first, region="us-east-1", config=named),)).environments


def test_stacks_refer_to_the_state_key_by_its_alias(bootstrap: Recording) -> None:
    assert bootstrap.one("aws:kms/alias:Alias", "state").at("name") == STATE_ALIAS


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_role_of_an_environment_carries_its_boundary(graphs: dict[str, Recording], environment: str) -> None:
    expected = layout()
    (here,) = [one for one in expected.environments if one.name == environment]
    for role in graphs[environment].of_type(ROLE).values():
        assert role.at("permissionsBoundary") == expected.boundary_arn(here)
        assert str(role.at("name")).startswith(f"{here.prefix}-")


@pytest.mark.parametrize("names", [("dev", "dev-eu"), ("dev-eu", "dev"), ("preview",), ("account",), ("images",)])
def test_environment_names_that_begin_with_each_other_are_refused(names: tuple[str, ...]) -> None:
    pattern = layout().environments[0]
    with pytest.raises(MlopsError, match="share a prefix"):
        layout(environments=tuple(replace(pattern, name=name) for name in names))


@pytest.mark.parametrize("boundary", [None, "another", "arn:aws:iam::111122223333:policy/mlops-dev-boundary"])
def test_an_environment_with_another_boundary_is_refused(boundary: str | None) -> None:
    first = layout().environments[0]
    config = first.config.model_copy(update={"permissions_boundary": boundary})
    with pytest.raises(MlopsError, match=r"Pulumi\.dev\.yaml has the wrong permissions_boundary") as refused:
        layout(environments=(replace(first, config=config),))
    assert refused.value.fix == "permissions_boundary: bootstrap/mlops-dev-boundary"


@pytest.mark.parametrize("repository", ["acme", "acme/mlops/more", "acme/*", "*/mlops", "acme/mlops:environment:prod"])
def test_a_repository_must_be_an_exact_name(repository: str) -> None:
    with pytest.raises(ValueError, match="repository"):
        AccountConfig(repository=repository, owner="us", cost_centre="1")


PERSON = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Data_0a1b2c3d4e5f6a7b"


def test_nobody_may_land_files_unless_they_are_named(bootstrap: Recording) -> None:
    assert bootstrap.outputs["land_roles"] == {}


def test_a_named_person_gets_a_role_that_only_adds_landing_files(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project", "infra/bootstrap")
    file = project / "infra" / "bootstrap" / "Pulumi.account.yaml"
    edit(file, "config", "mlops-bootstrap:account", "landing_principals", value={"dev": [PERSON]})
    bootstrap = record_bootstrap(project)
    assert [str(violation) for violation in violations(bootstrap.resources)] == []
    assert set(bootstrap.outputs["land_roles"]) == {"dev"}
    role = bootstrap.one(ROLE, "land-dev")
    assert (role.at("name"), role.at("path")) == ("mlops-land-dev", "/bootstrap/")
    (trust,) = json.loads(role.at("assumeRolePolicy"))["Statement"]
    assert trust == {"Effect": "Allow", "Principal": {"AWS": [PERSON]}, "Action": "sts:AssumeRole"}
    ((_, document),) = policies_of(Graph(bootstrap.resources), role)
    upload, encrypt = json.loads(document)["Statement"]
    landing = f"arn:aws:s3:::mlops-dev-landing-{ACCOUNT}"
    assert (upload["Action"], upload["Resource"]) == (["s3:PutObject"], [f"{landing}/*"])
    assert upload["Condition"] == {"Null": {"s3:if-none-match": "false"}}, "a landing file is never replaced"
    assert encrypt["Action"] == ["kms:GenerateDataKey"]
    assert encrypt["Condition"]["StringLike"] == {"kms:EncryptionContext:aws:s3:arn": [landing, f"{landing}/*"]}


def test_files_land_only_in_an_environment_that_exists() -> None:
    with pytest.raises(MlopsError, match=r"expected one of dev, staging, prod, found qa"):
        layout().landing({"qa": [PERSON]})


def test_labels_land_in_a_later_environment() -> None:
    assert [one.name for one in layout().landing({"prod": [PERSON]})] == ["prod"]


@pytest.mark.parametrize(
    "principal",
    ["*", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:role/*", "arn:aws:sts::1:assumed-role/a/b"],
)
def test_a_landing_principal_is_one_role_or_user(principal: str) -> None:
    config = {"repository": "acme/mlops", "owner": "us", "cost_centre": "1", "landing_principals": {"dev": [principal]}}
    with pytest.raises(ValueError, match="landing_principals"):
        AccountConfig.model_validate_json(json.dumps(config))


def test_no_job_on_github_may_write_data(bootstrap: Recording) -> None:
    for role in bootstrap.of_type(ROLE).values():
        for _, document in policies_of(Graph(bootstrap.resources), role):
            for statement in json.loads(document)["Statement"]:
                if statement["Effect"] == "Allow" and "s3:PutObject" in statement["Action"]:
                    assert not [arn for arn in statement["Resource"] if "-landing-" in arn], role.name


def test_the_preview_role_reads_no_secret_in_the_state() -> None:
    """Any branch can read the state of every stack through the preview role, so no program keeps a secret there."""
    makes_secrets = re.compile(
        r"Output\.secret|(require|get)_secret|additional_secret_outputs|pulumi_random|v1\.Secret\("
        r"|secretsmanager\.|AccessKey\(|Password"
    )
    for file in sorted((ROOT / "infra").rglob("*.py")):
        if "policies" not in file.parts:
            assert not makes_secrets.search(file.read_text()), file


def test_the_preview_role_reads_no_data_of_people(bootstrap: Recording) -> None:
    role = bootstrap.one(ROLE, "preview")
    read: list[str] = []
    for _, document in policies_of(Graph(bootstrap.resources), role):
        for statement in json.loads(document)["Statement"]:
            if any(action.startswith(("s3:GetObject", "s3:*")) for action in statement["Action"]):
                read += statement["Resource"]
    state = f"arn:aws:s3:::mlops-account-state-{ACCOUNT}/.pulumi/*"
    assert read
    for arn in set(read) - {state}:
        assert re.fullmatch(rf"arn:aws:s3:::mlops-\w+-registry-{ACCOUNT}/\w+/\*", arn), arn


def test_a_deploy_role_reads_the_reports_about_models_of_its_environment_and_no_other_logs(
    bootstrap: Recording,
) -> None:
    for role in bootstrap.of_type(ROLE).values():
        read = [
            arn
            for _, document in policies_of(Graph(bootstrap.resources), role)
            for statement in json.loads(document)["Statement"]
            if statement["Effect"] == "Allow" and "s3:GetObject" in statement["Action"]
            for arn in statement["Resource"]
            if "-logs-" in arn
        ]
        environment = role.name.removeprefix("deploy-")
        reports = f"arn:aws:s3:::mlops-{environment}-logs-{ACCOUNT}/monitoring/models/*.json"
        assert read == ([reports] if role.name.startswith("deploy-") else []), role.name


def test_a_deployment_writes_its_lineage_and_no_other_logs(bootstrap: Recording) -> None:
    for role in bootstrap.of_type(ROLE).values():
        written = [
            arn
            for _, document in policies_of(Graph(bootstrap.resources), role)
            for statement in json.loads(document)["Statement"]
            if statement["Effect"] == "Allow" and "s3:PutObject" in statement["Action"]
            for arn in statement["Resource"]
            if "-logs-" in arn and arn.partition("/")[2]
        ]
        assert all(arn.endswith("/lineage/deploy-*") for arn in written), role.name
        assert len(written) == role.name.startswith("deploy-"), role.name
