"""The policy of every bucket is the last of its settings, and denies the roles of jobs a change of any."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from infra.bootstrap.configuration import AccountConfig
from infra.bootstrap.permissions import access_statements, deploy_statements
from infra.policies.resource_graph import PlannedResource
from infra.scopes import BOOTSTRAP_PATH
from pipelines.declarations.errors import MlopsError
from tests.infra.conftest import ENVIRONMENTS
from tests.infra.recording import ACCOUNT, Recording
from tests.infra.test_bootstrap import ROLE, layout

S3 = "aws:s3/bucket"
SETTINGS = {
    "Logging": "s3:PutBucketLogging",
    "ObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "OwnershipControls": "s3:PutBucketOwnershipControls",
    "PublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "Versioning": "s3:PutBucketVersioning",
    "ServerSideEncryptionConfiguration": "s3:PutEncryptionConfiguration",
    "LifecycleConfiguration": "s3:PutLifecycleConfiguration",
}
"""Kind of a bucket's setting → the action that changes it."""


def seal(policy: PlannedResource) -> dict[str, Any]:
    (found,) = [one for one in json.loads(policy.at("policy"))["Statement"] if one.get("Sid") == "Sealed"]
    return dict(found)


def check(graph: Recording) -> None:
    policies = graph.of_type(f"{S3}Policy:BucketPolicy")
    assert policies.keys() == graph.of_type(f"{S3}:Bucket").keys()
    for name, policy in policies.items():
        denied = seal(policy)
        assert denied["Effect"] == "Deny"
        assert denied["Principal"] == {"AWS": "*"}
        assert denied["Resource"] == f"arn:aws:s3:::{graph.one(f'{S3}:Bucket', name).at('bucket')}"
        assert {"s3:PutBucketPolicy", "s3:DeleteBucketPolicy", *SETTINGS.values()} <= set(denied["Action"])
        # Every other setting comes first, because the policy denies it afterwards.
        before = graph.dependencies[policy.urn]
        for kind in SETTINGS:
            for setting in graph.of_type(f"{S3}{kind}:Bucket{kind}").values():
                if setting.name == name:
                    assert setting.urn in before, (name, kind)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_bucket_of_an_environment_is_sealed(graphs: dict[str, Recording], environment: str) -> None:
    check(graphs[environment])


def test_every_bucket_of_the_account_is_sealed(bootstrap: Recording) -> None:
    check(bootstrap)


def test_the_seal_applies_to_the_roles_of_jobs_and_not_to_administrators(
    bootstrap: Recording, graphs: dict[str, Recording]
) -> None:
    for policy in graphs["prod"].of_type(f"{S3}Policy:BucketPolicy").values():
        assert seal(policy)["Condition"] == {
            "ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/bootstrap/*"},
            "StringNotEquals": {"aws:PrincipalTag/data-protection": "may-change"},
        }
    for role in bootstrap.of_type(ROLE).values():
        assert role.at("path") == BOOTSTRAP_PATH == "/bootstrap/"


def test_only_the_roles_of_disposable_environments_may_change_the_protection(bootstrap: Recording) -> None:
    tagged = {name for name, role in bootstrap.of_type(ROLE).items() if "data-protection" in role.at("tags")}
    disposable = {one.name for one in layout().environments if one.config.disposable}
    assert tagged == {f"deploy-{name}" for name in disposable} == {"deploy-dev"}


def test_an_environment_can_be_opened_by_name() -> None:
    assert layout().opened(["prod"]) == {"dev", "prod"}
    with pytest.raises(MlopsError, match="expected one of dev, staging, prod, found qa"):
        layout().opened(["qa"])
    config = {"repository": "acme/mlops", "owner": "us", "cost_centre": "1"}
    assert AccountConfig.model_validate_json(json.dumps({**config, "open_environments": ["prod"]})).open_environments


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_deploy_role_is_denied_data_and_other_roles_and_changes_no_trust(environment: str) -> None:
    (here,) = [one for one in layout().environments if one.name == environment]
    policies = {**deploy_statements(layout(), here), "access": access_statements(here)}
    statements = [statement for policy in policies.values() for statement in policy]
    allowed = {action for one in statements if one["Effect"] == "Allow" for action in one["Action"]}
    assert "iam:UpdateAssumeRolePolicy" not in allowed
    denied = {action: one for one in statements if one["Effect"] == "Deny" for action in one["Action"]}
    assert denied["sts:AssumeRole"]["Resource"] == ["*"]
    assert ("s3:DeleteObjectVersion" in denied) is not here.config.disposable
    for action in ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"):
        kept = denied[action]["NotResource"]
        assert not [arn for arn in kept if "landing" in arn or "inference" in arn or "/data/" in arn]
        logs = [arn.partition("/")[2] for arn in kept if "-logs-" in arn]
        assert logs == (["lineage/deploy-*"] if action == "s3:PutObject" else ["monitoring/models/*.json"])
        # What the role is allowed elsewhere, the limits do not take away.
        for statement in statements:
            if statement["Effect"] == "Allow" and action in statement["Action"]:
                for arn in statement["Resource"]:
                    assert any(fnmatchcase(arn, pattern) for pattern in kept), arn
