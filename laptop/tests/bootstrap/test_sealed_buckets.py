"""Deny a deploy role to change the buckets and roles that it created, by real calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.tests.bootstrap.conftest import Caller, Ready
from laptop.tests.bootstrap.test_permissions import MODEL, boundary, bucket, refused, role

pytestmark = pytest.mark.slow

Change = Callable[[Any, str], Any]
"""Changes one setting of a bucket; takes the client and the bucket's name."""

LIFECYCLE = {
    "Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}],
}
OPEN = {"BlockPublicAcls": False, "IgnorePublicAcls": False, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}


def policy_for(arn: str, name: str) -> str:
    """Return a bucket policy that lets one principal do everything."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": arn},
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


CHANGES: dict[str, Change] = {
    "s3:PutBucketPolicy": lambda s3, name: s3.put_bucket_policy(
        Bucket=name, Policy=policy_for("arn:aws:iam::999999999999:root", name)
    ),
    "s3:DeleteBucketPolicy": lambda s3, name: s3.delete_bucket_policy(Bucket=name),
    "s3:PutLifecycleConfiguration": lambda s3, name: s3.put_bucket_lifecycle_configuration(
        Bucket=name, LifecycleConfiguration=LIFECYCLE
    ),
    "s3:PutBucketPublicAccessBlock": lambda s3, name: s3.put_public_access_block(
        Bucket=name, PublicAccessBlockConfiguration=OPEN
    ),
    "s3:PutBucketLogging": lambda s3, name: s3.put_bucket_logging(Bucket=name, BucketLoggingStatus={}),
    "s3:PutBucketObjectLockConfiguration": lambda s3, name: s3.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    ),
    "s3:PutBucketVersioning": lambda s3, name: s3.put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Suspended"}
    ),
    "s3:PutEncryptionConfiguration": lambda s3, name: s3.delete_bucket_encryption(Bucket=name),
    "s3:PutBucketOwnershipControls": lambda s3, name: s3.delete_bucket_ownership_controls(Bucket=name),
    "s3:PutBucketAcl": lambda s3, name: s3.put_bucket_acl(Bucket=name, ACL="public-read"),
    "s3:PutReplicationConfiguration": lambda s3, name: s3.put_bucket_replication(
        Bucket=name,
        ReplicationConfiguration={
            "Role": "arn:aws:iam::123456789012:role/x",
            "Rules": [{"Status": "Enabled", "Destination": {"Bucket": "arn:aws:s3:::elsewhere"}}],
        },
    ),
}


@pytest.fixture(scope="module")
def staging(provisioned: Ready) -> Caller:
    return provisioned.as_job("staging")


@contextmanager
def opened(ready: Ready, name: str) -> Iterator[None]:
    """Let a deploy role change the protection of buckets for a while, as the bootstrap does."""
    iam, named = ready.operator["iam"], ready.role(name).rpartition("/")[2]
    iam.tag_role(RoleName=named, Tags=[{"Key": "data-protection", "Value": "may-change"}])
    try:
        yield
    finally:
        iam.untag_role(RoleName=named, TagKeys=["data-protection"])


@pytest.mark.parametrize("purpose", ["registry", "logs", "lake", "landing", "access-logs"])
@pytest.mark.parametrize("action", CHANGES)
def test_a_deploy_role_cannot_change_the_protection_of_a_bucket(
    provisioned: Ready, staging: Caller, action: str, purpose: str
) -> None:
    with refused(action):
        CHANGES[action](staging["s3"], bucket("staging", purpose))


def test_the_seal_is_what_refuses_the_deploy_role(provisioned: Ready, staging: Caller) -> None:
    name = bucket("staging", "logs")
    held = provisioned.operator["s3"].get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    with pytest.raises(ClientError, match="explicit deny in a resource-based policy"):
        staging["s3"].put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": held})
    with opened(provisioned, "staging"):
        staging["s3"].put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": held})
    with pytest.raises(ClientError, match="explicit deny in a resource-based policy"):
        staging["s3"].put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": held})


def test_an_administrator_can_change_the_protection(provisioned: Ready) -> None:
    s3, name = provisioned.operator["s3"], bucket("staging", "logs")
    held = s3.get_bucket_policy(Bucket=name)["Policy"]
    assert s3.put_bucket_policy(Bucket=name, Policy=held)


def test_a_deploy_role_cannot_open_itself(provisioned: Ready, staging: Caller) -> None:
    own = provisioned.role("staging").rpartition("/")[2]
    with refused("iam:TagRole"):
        staging["iam"].tag_role(RoleName=own, Tags=[{"Key": "data-protection", "Value": "may-change"}])
    with refused("sts:AssumeRole"):
        staging["sts"].assume_role(
            RoleArn=provisioned.role("staging"),
            RoleSessionName="again",
            Tags=[{"Key": "data-protection", "Value": "may-change"}],
        )


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_a_bucket_policy_gives_a_deploy_role_no_data(provisioned: Ready, environment: str) -> None:
    """The role of a disposable environment may write bucket policies, and so may one that is opened."""
    who, operator = provisioned.as_job(environment)["s3"], provisioned.operator["s3"]
    held = {}
    with opened(provisioned, environment) if environment == "staging" else nullcontext():
        for purpose, key in (("landing", "d/x.csv"), ("lake", "mlops/t/data/x"), ("logs", f"inference/{MODEL}/x")):
            name = bucket(environment, purpose)
            operator.put_object(Bucket=name, Key=key, Body=b"1")
            held[name] = operator.get_bucket_policy(Bucket=name)["Policy"]
            who.put_bucket_policy(Bucket=name, Policy=policy_for(provisioned.role(environment), name))
            with refused("s3:GetObject"):
                who.get_object(Bucket=name, Key=key)
            with refused("s3:PutObject"):
                who.put_object(Bucket=name, Key=key, Body=b"2")
            version = operator.head_object(Bucket=name, Key=key)["VersionId"]
            with refused("s3:GetObjectVersion"):
                who.get_object(Bucket=name, Key=key, VersionId=version)
            if environment == "staging":
                with refused("s3:DeleteObject"):
                    who.delete_object(Bucket=name, Key=key)
                with refused("s3:DeleteObjectVersion"):
                    who.delete_object(Bucket=name, Key=key, VersionId=version)
    for name, policy in held.items():
        operator.put_bucket_policy(Bucket=name, Policy=policy)


def test_a_deploy_role_becomes_no_role_of_its_environment(provisioned: Ready, staging: Caller) -> None:
    trusts_me = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": provisioned.role("staging")},
                    "Action": ["sts:AssumeRole", "sts:TagSession"],
                }
            ],
        }
    )
    with refused("iam:UpdateAssumeRolePolicy"):
        staging["iam"].update_assume_role_policy(RoleName=role("staging"), PolicyDocument=trusts_me)
    evil = role("staging", "evil")
    arn = staging["iam"].create_role(
        RoleName=evil, AssumeRolePolicyDocument=trusts_me, PermissionsBoundary=boundary("staging")
    )["Role"]["Arn"]
    try:
        with pytest.raises(ClientError, match=r"sts:AssumeRole .* explicit deny in an identity-based policy"):
            staging["sts"].assume_role(RoleArn=arn, RoleSessionName="me")
    finally:
        staging["iam"].delete_role(RoleName=evil)


def test_a_deploy_role_passes_its_roles_to_pods_of_its_cluster_only(provisioned: Ready, staging: Caller) -> None:
    given = {"namespace": "models-staging", "serviceAccount": "x"}
    eks = staging["eks"]
    with refused("eks:CreatePodIdentityAssociation"):
        eks.create_pod_identity_association(
            clusterName="mlops-prod", roleArn=f"arn:aws:iam::123456789012:role/{role('staging')}", **given
        )
    for other in (role("dev"), "bootstrap/mlops-deploy-staging"):
        with refused("iam:PassRole"):
            eks.create_pod_identity_association(
                clusterName="mlops-staging", roleArn=f"arn:aws:iam::123456789012:role/{other}", **given
            )


@pytest.mark.parametrize("name", ["dev", "staging", "preview"])
def test_no_role_that_deploys_or_previews_changes_an_image_repository(provisioned: Ready, name: str) -> None:
    ecr = provisioned.as_job(name)["ecr"]
    repository = {"repositoryName": "mlops/serving"}
    calls: dict[str, Callable[[], object]] = {
        "ecr:SetRepositoryPolicy": lambda: ecr.set_repository_policy(policyText="{}", **repository),
        "ecr:DeleteRepositoryPolicy": lambda: ecr.delete_repository_policy(**repository),
        "ecr:PutLifecyclePolicy": lambda: ecr.put_lifecycle_policy(lifecyclePolicyText=" " * 100, **repository),
        "ecr:PutImageTagMutability": lambda: ecr.put_image_tag_mutability(imageTagMutability="MUTABLE", **repository),
    }
    for action, call in calls.items():
        with refused(action):
            call()


@pytest.mark.parametrize("name", ["dev", "staging", "prod", "preview"])
def test_no_job_on_github_reads_the_requests_of_callers(provisioned: Ready, name: str) -> None:
    who = provisioned.as_job(name)["s3"]
    for environment in ("dev", "staging"):
        key = f"inference/{MODEL}/2026/01/01/00/pod-1.jsonl"
        provisioned.operator["s3"].put_object(Bucket=bucket(environment, "logs"), Key=key, Body=b"1")
        with refused("s3:GetObject"):
            who.get_object(Bucket=bucket(environment, "logs"), Key=key)


def test_a_deploy_role_counts_requests_where_a_release_comes_from(provisioned: Ready, staging: Caller) -> None:
    counts = f"inference/{MODEL}/counts/2026/01/01/"
    assert staging["s3"].list_objects_v2(Bucket=bucket("dev", "logs"), Prefix=counts)["KeyCount"] == 0
    for prefix in (f"inference/{MODEL}/2026/", "inference/", ""):
        with refused("s3:ListBucket"):
            staging["s3"].list_objects_v2(Bucket=bucket("dev", "logs"), Prefix=prefix)
    with refused("s3:ListBucket"):
        provisioned.as_job("dev")["s3"].list_objects_v2(Bucket=bucket("staging", "logs"), Prefix=counts)
