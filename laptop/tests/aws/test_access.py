"""Tests of IAM rules over HTTP, with the credentials of pods."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from laptop.aws.account import Account

from .conftest import TRUSTS_PODS

pytestmark = pytest.mark.slow

ACCOUNT = "123456789012"


def allow(action: str | list[str], resource: str | list[str], **condition: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def deny(action: str | list[str], resource: str | list[str]) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource}


class refused:  # noqa: N801 - reads as a word: `with refused("s3:GetObject")`
    """Expects a refusal that names the missing permission."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        assert isinstance(error, ClientError), f"the account did not refuse it ({error!r})"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        # The answer to a HEAD has no body to name it.
        if error.operation_name != "HeadObject":
            for word in self._words:
                assert word in error.response["Error"]["Message"]
        return True


def test_a_role_without_a_policy_may_only_get_its_identity(pod: Any, bucket: str) -> None:
    unprivileged = pod()
    assert ":assumed-role/" in unprivileged["sts"].get_caller_identity()["Arn"]
    with refused("s3:ListBucket", bucket):
        unprivileged["s3"].list_objects_v2(Bucket=bucket)
    with refused("kms:ListKeys"):
        unprivileged["kms"].list_keys()
    with refused("glue:GetDatabases"):
        unprivileged["glue"].get_databases()
    with refused("iam:ListRoles"):
        unprivileged["iam"].list_roles()
    with refused("ecr:DescribeRepositories"):
        unprivileged["ecr"].describe_repositories()
    with refused("eks:ListClusters"):
        unprivileged["eks"].list_clusters()
    with refused("cloudwatch:PutMetricData"):
        unprivileged["cloudwatch"].put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1}])
    with refused("sts:AssumeRole"):
        unprivileged["sts"].assume_role(RoleArn=unprivileged.credentials["arn"], RoleSessionName="again")


def test_a_grant_on_a_prefix_does_not_cover_other_prefixes_or_buckets(
    pod: Any, bucket: str, client: Callable[[str], Any]
) -> None:
    client("s3").put_object(Bucket=bucket, Key="theirs/x", Body=b"x")
    reader = pod(allow("s3:*Object", f"arn:aws:s3:::{bucket}/mine/*"))["s3"]
    reader.put_object(Bucket=bucket, Key="mine/a", Body=b"1")
    assert reader.get_object(Bucket=bucket, Key="mine/a")["Body"].read() == b"1"
    with refused("s3:GetObject", "theirs/x"):
        reader.get_object(Bucket=bucket, Key="theirs/x")
    with refused("s3:PutObject"):
        reader.put_object(Bucket=bucket, Key="theirs/y", Body=b"1")
    with refused("s3:PutObject"):
        reader.put_object(Bucket="another-bucket", Key="mine/a", Body=b"1")
    with refused("s3:DeleteBucket"):
        reader.delete_bucket(Bucket=bucket)


def test_a_list_grant_covers_only_the_prefix_of_its_condition(pod: Any, bucket: str) -> None:
    lister = pod(allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", StringLike={"s3:prefix": ["mine/*"]}))["s3"]
    assert lister.list_objects_v2(Bucket=bucket, Prefix="mine/")["KeyCount"] == 0
    with refused("s3:ListBucket"):
        lister.list_objects_v2(Bucket=bucket, Prefix="theirs/")
    with refused("s3:ListBucket"):
        lister.list_objects_v2(Bucket=bucket)


def test_an_explicit_deny_overrides_every_allow(pod: Any, bucket: str) -> None:
    pod_ = pod(allow("s3:*", "*"), deny("s3:DeleteObject*", f"arn:aws:s3:::{bucket}/*"))["s3"]
    pod_.put_object(Bucket=bucket, Key="kept", Body=b"1")
    with refused("s3:DeleteObject", "explicit deny"):
        pod_.delete_object(Bucket=bucket, Key="kept")
    answer = pod_.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "kept"}]})
    assert "explicit deny" in answer["Errors"][0]["Message"]
    assert pod_.head_object(Bucket=bucket, Key="kept")


def test_a_caller_without_the_list_permission_does_not_learn_that_an_object_is_missing(pod: Any, bucket: str) -> None:
    get = allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*")
    with refused("s3:ListBucket"):
        pod(get)["s3"].get_object(Bucket=bucket, Key="missing")
    with refused():
        pod(get)["s3"].head_object(Bucket=bucket, Key="missing")
    lister = pod(get, allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", StringLike={"s3:prefix": "mi*"}))["s3"]
    with pytest.raises(lister.exceptions.NoSuchKey):
        lister.get_object(Bucket=bucket, Key="missing")


def test_a_copy_needs_permission_to_read_its_source(pod: Any, bucket: str, client: Callable[[str], Any]) -> None:
    client("s3").put_object(Bucket=bucket, Key="secret/a", Body=b"1")
    writer = pod(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/mine/*"))["s3"]
    with refused("s3:GetObject", "secret/a"):
        writer.copy_object(Bucket=bucket, Key="mine/a", CopySource={"Bucket": bucket, "Key": "secret/a"})


def test_a_conditional_overwrite_needs_permission_to_read(pod: Any, bucket: str) -> None:
    writer = pod(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/*"))["s3"]
    tag = writer.put_object(Bucket=bucket, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("s3:GetObject"):
        writer.put_object(Bucket=bucket, Key="a", Body=b"2", IfMatch=tag)


def test_governance_retention_needs_permission_to_bypass_it(
    pod: Any, account: Account, client: Callable[[str], Any], name: str
) -> None:
    s3, locked = client("s3"), f"locked-{name}"
    s3.create_bucket(
        Bucket=locked,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": account.region},
    )
    version = s3.put_object(Bucket=locked, Key="a", Body=b"1")["VersionId"]
    deleter = pod(allow("s3:DeleteObject*", "*"))["s3"]
    with refused("s3:BypassGovernanceRetention"):
        deleter.delete_object(Bucket=locked, Key="a", VersionId=version, BypassGovernanceRetention=True)


def test_an_encrypted_bucket_needs_permission_on_its_key(
    pod: Any, make: Any, bucket: str, client: Callable[[str], Any], account: Account, name: str
) -> None:
    key = make("aws:kms/key:Key", name).outputs["arn"]
    make(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        name,
        bucket=bucket,
        rules=[
            {
                "applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": key},
                "bucketKeyEnabled": True,
            }
        ],
    )
    client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    objects = allow(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket}/*")
    keyless = pod(objects)["s3"]
    with refused("kms:Decrypt", key):
        keyless.get_object(Bucket=bucket, Key="a")
    with refused("kms:GenerateDataKey", key):
        keyless.put_object(Bucket=bucket, Key="b", Body=b"1")

    through_s3 = {
        "StringEquals": {"kms:ViaService": f"s3.{account.region}.amazonaws.com"},
        "StringLike": {"kms:EncryptionContext:aws:s3:arn": [f"arn:aws:s3:::{bucket}"]},
    }
    whole = pod(objects, allow(["kms:Decrypt", "kms:GenerateDataKey"], key, **through_s3))
    whole["s3"].put_object(Bucket=bucket, Key="b", Body=b"2")
    assert whole["s3"].get_object(Bucket=bucket, Key="b")["Body"].read() == b"2"
    with refused("kms:GenerateDataKey"):  # the grant covers the key through S3 only
        whole["kms"].generate_data_key(KeyId=key, KeySpec="AES_256")


def test_a_grant_on_one_key_does_not_allow_signing_with_another(pod: Any, make: Any, name: str) -> None:
    inputs = {"customerMasterKeySpec": "ECC_NIST_P256", "keyUsage": "SIGN_VERIFY"}
    mine = make("aws:kms/key:Key", f"{name}-mine", **inputs).outputs["arn"]
    theirs = make("aws:kms/key:Key", f"{name}-theirs", **inputs).outputs["arn"]
    make("aws:kms/alias:Alias", name, name=f"alias/{name}", targetKeyId=mine)
    signs = {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}}
    signer = pod(allow("kms:Sign", mine, **signs))["kms"]
    message = {"Message": b"m", "MessageType": "RAW", "SigningAlgorithm": "ECDSA_SHA_256"}
    assert signer.sign(KeyId=mine, **message)["Signature"]
    assert signer.sign(KeyId=f"alias/{name}", **message)["Signature"]
    with refused("kms:Sign", theirs):
        signer.sign(KeyId=theirs, **message)
    with refused("kms:GetPublicKey"):
        signer.get_public_key(KeyId=mine)
    with refused("kms:Sign"):
        signer.sign(KeyId=mine, **{**message, "MessageType": "DIGEST", "Message": b"0" * 32})


def test_a_key_refuses_callers_that_its_policy_does_not_allow(pod: Any, make: Any, name: str) -> None:
    wide = pod(allow("kms:*", "*"))
    closed = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/operator"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }
    key = make("aws:kms/key:Key", name, policy=json.dumps(closed)).outputs["arn"]
    with refused("kms:DescribeKey", "resource-based policy"):
        wide["kms"].describe_key(KeyId=key)


def test_glue_needs_permission_on_catalog_database_and_table(pod: Any, make: Any, name: str) -> None:
    database = make("aws:glue/catalogDatabase:CatalogDatabase", name).outputs["name"]
    make("aws:glue/catalogTable:CatalogTable", name, name="t", databaseName=database)
    make("aws:glue/catalogTable:CatalogTable", name, name="other", databaseName=database)
    base = f"arn:aws:glue:eu-west-1:{ACCOUNT}"
    table = f"{base}:table/{database}/t"
    with refused("glue:GetTable", "catalog"):
        pod(allow("glue:GetTable", table))["glue"].get_table(DatabaseName=database, Name="t")
    reader = pod(allow("glue:GetTable", [f"{base}:catalog", f"{base}:database/{database}", table]))["glue"]
    assert reader.get_table(DatabaseName=database, Name="t")["Table"]["Name"] == "t"
    with refused("glue:GetTable", "other"):
        reader.get_table(DatabaseName=database, Name="other")
    with refused("glue:UpdateTable"):
        reader.update_table(DatabaseName=database, TableInput={"Name": "t"})


def test_conditions_on_the_tags_of_a_key_apply_to_requested_and_existing_tags(pod: Any, make: Any, name: str) -> None:
    def made(environment: str) -> str:
        return str(make("aws:kms/key:Key", f"{name}-{environment}", tags={"environment": environment}).outputs["keyId"])

    mine, theirs = made("dev"), made("prod")
    own = {"StringEquals": {"aws:ResourceTag/environment": "dev"}}
    conditions = {
        "StringEquals": {"aws:RequestTag/environment": "dev"},
        "Null": {"aws:ResourceTag/environment": "true"},
    }
    keys = f"arn:aws:kms:*:{ACCOUNT}:key/*"
    kms = pod(
        allow("kms:CreateKey", "*", StringEquals={"aws:RequestTag/environment": "dev"}),
        allow("kms:TagResource", keys, **conditions),
        allow(["kms:DescribeKey", "kms:UntagResource"], keys, **own),
    )["kms"]
    assert kms.describe_key(KeyId=mine)
    assert kms.create_key(Tags=[{"TagKey": "environment", "TagValue": "dev"}])
    with refused("kms:CreateKey"):
        kms.create_key()
    with refused("kms:CreateKey"):
        kms.create_key(Tags=[{"TagKey": "environment", "TagValue": "prod"}])
    with refused("kms:DescribeKey"):
        kms.describe_key(KeyId=theirs)
    with refused("kms:TagResource"):
        kms.tag_resource(KeyId=theirs, Tags=[{"TagKey": "environment", "TagValue": "dev"}])
    kms.untag_resource(KeyId=mine, TagKeys=["environment"])
    with refused("kms:DescribeKey"):
        kms.describe_key(KeyId=mine)


def test_creating_a_key_with_tags_needs_permission_to_tag(pod: Any) -> None:
    kms = pod(allow("kms:CreateKey", "*"))["kms"]
    assert kms.create_key()
    with refused("kms:TagResource"):
        kms.create_key(Tags=[{"TagKey": "environment", "TagValue": "dev"}])


def test_permission_to_create_bounded_roles_does_not_cover_other_roles(
    pod: Any, client: Callable[[str], Any], name: str
) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:*", "*")]})
    boundary = client("iam").create_policy(PolicyName=f"bound-{name}", PolicyDocument=document)["Policy"]["Arn"]
    roles, trust = f"arn:aws:iam::{ACCOUNT}:role/{name}-*", json.dumps(TRUSTS_PODS)
    iam = pod(
        allow(["iam:CreateRole", "iam:PutRolePolicy"], roles, StringEquals={"iam:PermissionsBoundary": boundary})
    )["iam"]
    iam.create_role(RoleName=f"{name}-a", AssumeRolePolicyDocument=trust, PermissionsBoundary=boundary)
    iam.put_role_policy(RoleName=f"{name}-a", PolicyName="p", PolicyDocument=document)
    with refused("iam:CreateRole"):
        iam.create_role(RoleName=f"{name}-b", AssumeRolePolicyDocument=trust)
    with refused("iam:TagRole"):
        iam.create_role(
            RoleName=f"{name}-b",
            AssumeRolePolicyDocument=trust,
            PermissionsBoundary=boundary,
            Tags=[{"Key": "environment", "Value": "dev"}],
        )
    client("iam").create_role(RoleName=f"{name}-old", AssumeRolePolicyDocument=trust)
    with refused("iam:PutRolePolicy"):
        iam.put_role_policy(RoleName=f"{name}-old", PolicyName="p", PolicyDocument=document)


def test_a_role_is_matched_by_its_actual_path(pod: Any, client: Callable[[str], Any], name: str) -> None:
    client("iam").create_role(RoleName=name, Path="/kept/", AssumeRolePolicyDocument=json.dumps(TRUSTS_PODS))
    iam = pod(allow("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/{name}"))["iam"]
    with refused("iam:GetRole", f"role/kept/{name}"):
        iam.get_role(RoleName=name)


def test_a_repository_grant_does_not_cover_other_repositories(pod: Any, make: Any, name: str) -> None:
    mine = make("aws:ecr/repository:Repository", f"{name}-mine").outputs
    theirs = make("aws:ecr/repository:Repository", f"{name}-theirs").outputs
    about = ["ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:ListTagsForResource"]
    puller = pod(allow(about, mine["arn"]))["ecr"]
    assert puller.describe_repositories(repositoryNames=[mine["name"]])["repositories"]
    assert puller.list_tags_for_resource(resourceArn=mine["arn"])["tags"] == []
    with refused("ecr:DescribeRepositories", theirs["name"]):
        puller.describe_repositories(repositoryNames=[mine["name"], theirs["name"]])
    with refused("ecr:ListTagsForResource", theirs["name"]):
        puller.list_tags_for_resource(resourceArn=theirs["arn"])
    assert puller.describe_images(repositoryName=mine["name"])["imageDetails"] == []
    with refused("ecr:DescribeImages", theirs["name"]):
        puller.describe_images(repositoryName=theirs["name"])


def test_a_cluster_grant_does_not_cover_other_clusters(pod: Any, client: Callable[[str], Any], name: str) -> None:
    eks = client("eks")
    for cluster in (name, f"{name}-other"):
        role = f"arn:aws:iam::{ACCOUNT}:role/cluster"
        eks.create_cluster(name=cluster, roleArn=role, resourcesVpcConfig={"subnetIds": []})
    arn = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/{name}"
    reader = pod(allow(["eks:DescribeCluster", "eks:ListTagsForResource"], arn))
    assert reader["eks"].describe_cluster(name=name)["cluster"]["name"] == name
    assert reader["eks"].list_tags_for_resource(resourceArn=arn)["tags"] == {}
    with refused("eks:DescribeCluster", f"{arn}-other"):
        reader["eks"].describe_cluster(name=f"{name}-other")
    with refused("eks:ListTagsForResource", f"{arn}-other"):
        reader["eks"].list_tags_for_resource(resourceArn=f"{arn}-other")


def test_a_bucket_policy_allows_and_denies_by_its_conditions(
    pod: Any, bucket: str, client: Callable[[str], Any]
) -> None:
    s3, arn = client("s3"), f"arn:aws:s3:::{bucket}"
    invited = pod()
    statements = [
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": invited.credentials["arn"]},
            "Action": "s3:GetObject",
            "Resource": f"{arn}/*",
        },
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": f"{arn}/*",
            "Condition": {
                "Null": {"s3:x-amz-server-side-encryption": "false"},
                "StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"},
            },
        },
    ]
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    document = {"Version": "2012-10-17", "Statement": statements}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))

    assert invited["s3"].get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
    with refused("s3:DeleteObject"):
        invited["s3"].delete_object(Bucket=bucket, Key="a")
    s3.put_object(Bucket=bucket, Key="b", Body=b"1")
    with refused("s3:PutObject", "explicit deny in a resource-based policy"):
        s3.put_object(Bucket=bucket, Key="b", Body=b"1", ServerSideEncryption="AES256")
    s3.delete_bucket_policy(Bucket=bucket)


def test_a_permissions_boundary_limits_a_role(pod: Any, bucket: str, client: Callable[[str], Any], name: str) -> None:
    boundary = client("iam").create_policy(
        PolicyName=f"boundary-{name}",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:GetObject", "*")]}),
    )["Policy"]["Arn"]
    client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    capped = pod(allow("s3:*", "*"), boundary=boundary)["s3"]
    assert capped.get_object(Bucket=bucket, Key="a")
    with refused("permissions boundary"):
        capped.put_object(Bucket=bucket, Key="a", Body=b"1")


def test_a_role_with_a_missing_boundary_is_refused(client: Callable[[str], Any], name: str) -> None:
    with pytest.raises(ClientError, match=r"NoSuchEntity.*does not exist or is not attachable"):
        client("iam").create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps(TRUSTS_PODS),
            PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/nothing",
        )


def test_a_session_policy_limits_its_session(pod: Any, bucket: str, client: Callable[[str], Any]) -> None:
    client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    session = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:GetObject", "*")]})
    capped = pod(allow("s3:*", "*"), Policy=session)["s3"]
    assert capped.get_object(Bucket=bucket, Key="a")
    with refused("session policy"):
        capped.put_object(Bucket=bucket, Key="a", Body=b"1")


def test_session_tags_replace_policy_variables(pod: Any, bucket: str) -> None:
    own = allow("s3:PutObject", f"arn:aws:s3:::{bucket}/${{aws:PrincipalTag/kubernetes-namespace}}/*")
    ours = pod(own, Tags=[{"Key": "kubernetes-namespace", "Value": "models"}])["s3"]
    ours.put_object(Bucket=bucket, Key="models/a", Body=b"1")
    with refused("s3:PutObject"):
        ours.put_object(Bucket=bucket, Key="others/a", Body=b"1")
    with refused("s3:PutObject"):
        pod(own)["s3"].put_object(Bucket=bucket, Key="models/a", Body=b"1")


def test_removing_a_policy_takes_effect_immediately(pod: Any, bucket: str, client: Callable[[str], Any]) -> None:
    reader = pod(allow("s3:ListBucket", "*"))
    reader["s3"].list_objects_v2(Bucket=bucket)
    client("iam").delete_role_policy(RoleName=reader.credentials["role"], PolicyName="p")
    with refused("s3:ListBucket"):
        reader["s3"].list_objects_v2(Bucket=bucket)
    client("iam").delete_role(RoleName=reader.credentials["role"])
    with refused():
        reader["s3"].list_objects_v2(Bucket=bucket)


class TestTrust:
    def trust(self, **changes: Any) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [{**TRUSTS_PODS["Statement"][0], **changes}]}

    def test_a_role_that_does_not_trust_eks_pod_identity_is_not_assumed(self, pod: Any) -> None:
        with refused("sts:AssumeRole"):
            pod(trust=self.trust(Principal={"Service": "ec2.amazonaws.com"}))

    def test_session_tags_need_permission_to_tag_the_session(self, pod: Any) -> None:
        trust = self.trust(Action="sts:AssumeRole")
        assert pod(trust=trust)
        with refused("sts:TagSession"):
            pod(trust=trust, Tags=[{"Key": "kubernetes-namespace", "Value": "models"}])

    def test_trust_in_one_service_account_does_not_cover_others(self, pod: Any) -> None:
        trust = self.trust(
            Condition={
                "StringEquals": {
                    "aws:SourceAccount": ACCOUNT,
                    "aws:RequestTag/kubernetes-service-account": "train-diabetes",
                }
            }
        )
        arn = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/mlops"

        def tags(service_account: str) -> list[dict[str, str]]:
            return [
                {"Key": "eks-cluster-arn", "Value": arn},
                {"Key": "kubernetes-service-account", "Value": service_account},
            ]

        assert pod(trust=trust, Tags=tags("train-diabetes"))
        with refused("sts:AssumeRole"):
            pod(trust=trust, Tags=tags("serve-diabetes"))

    def test_the_operator_cannot_assume_the_role_of_a_pod(self, pod: Any, client: Any) -> None:
        arn = pod(allow("s3:*", "*")).credentials["arn"]
        with refused("sts:AssumeRole"):
            client("sts").assume_role(RoleArn=arn, RoleSessionName="operator")

    def test_a_role_that_trusts_the_account_needs_permission_to_assume_it(self, pod: Any, client: Any) -> None:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"sts:ExternalId": "42"}},
                }
            ],
        }
        arn = client("iam").create_role(RoleName="deploy", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        assert client("sts").assume_role(RoleArn=arn, RoleSessionName="ci", ExternalId="42")
        with refused("sts:AssumeRole"):
            client("sts").assume_role(RoleArn=arn, RoleSessionName="ci")
        with refused("sts:AssumeRole", "identity-based"):
            pod()["sts"].assume_role(RoleArn=arn, RoleSessionName="ci", ExternalId="42")

    def test_pod_identity_may_only_assume_roles(self, agent: Any, account: Account) -> None:
        lines = (account.home / "pod-identity-credentials").read_text().split()
        s3 = boto3.client(
            "s3", endpoint_url=account.endpoint, aws_access_key_id=lines[3], aws_secret_access_key=lines[6]
        )
        with refused("s3:ListAllMyBuckets"):
            s3.list_buckets()

    def test_a_role_that_does_not_exist_is_not_assumed(self, agent: Any) -> None:
        with refused("sts:AssumeRole"):
            agent.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/nobody", RoleSessionName="pod-1")


class TestCredentials:
    def test_a_wrong_secret_is_refused(self, account: Account, pod: Any) -> None:
        key = pod(allow("s3:*", "*")).credentials
        s3 = boto3.client(
            "s3",
            endpoint_url=account.endpoint,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key="wrong",
            aws_session_token=key["SessionToken"],
        )
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            s3.list_buckets()

    def test_a_key_of_a_session_without_its_token_is_refused(self, account: Account, pod: Any) -> None:
        key = pod(allow("s3:*", "*")).credentials
        s3 = boto3.client(
            "s3",
            endpoint_url=account.endpoint,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )
        with pytest.raises(ClientError, match="InvalidToken"):
            s3.list_buckets()

    def test_an_unknown_key_is_refused(self, account: Account) -> None:
        sts = boto3.client(
            "sts",
            endpoint_url=account.endpoint,
            region_name="eu-west-1",
            aws_access_key_id="AKIA0000000000000000",
            aws_secret_access_key="x",
        )
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            sts.get_caller_identity()

    def test_a_request_without_a_signature_is_refused(self, account: Account, bucket: str) -> None:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{account.endpoint}/{bucket}")

    @pytest.mark.parametrize("path", ["/moto-api/reset", "/moto-api/reset-auth", "/moto-api/data.json"])
    def test_the_extra_paths_of_moto_are_closed(self, account: Account, path: str) -> None:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(f"{account.endpoint}{path}", b"", method="POST"))

    def test_a_presigned_url_is_refused(self, client: Any, bucket: str) -> None:
        s3 = client("s3")
        s3.put_object(Bucket=bucket, Key="a", Body=b"1")
        address = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address)


def test_metrics_may_be_sent_to_the_namespace_of_a_condition_only(pod: Any) -> None:
    sender = pod(allow("cloudwatch:PutMetricData", "*", StringEquals={"cloudwatch:namespace": "mlops-dev"}))
    data = [{"MetricName": "Runs", "Value": 1.0}]
    sender["cloudwatch"].put_metric_data(Namespace="mlops-dev", MetricData=data)
    for other in ("mlops-prod", "AWS/S3"):
        with refused("cloudwatch:PutMetricData"):
            sender["cloudwatch"].put_metric_data(Namespace=other, MetricData=data)
    with refused("cloudwatch:ListMetrics"):
        sender["cloudwatch"].list_metrics()


def test_alarms_are_allowed_by_name(pod: Any, client: Callable[[str], Any]) -> None:
    named = f"arn:aws:cloudwatch:eu-west-1:{ACCOUNT}:alarm:mlops-dev-*"
    caller = pod(allow(["cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"], named))
    settings = {
        "MetricName": "Runs",
        "Namespace": "mlops-dev",
        "Statistic": "Sum",
        "Period": 3600,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "LessThanThreshold",
    }
    cloudwatch = caller["cloudwatch"]
    cloudwatch.put_metric_alarm(AlarmName="mlops-dev-a", **settings)
    assert len(cloudwatch.describe_alarms(AlarmNames=["mlops-dev-a"])["MetricAlarms"]) == 1
    with refused("cloudwatch:PutMetricAlarm", "mlops-prod-a"):
        cloudwatch.put_metric_alarm(AlarmName="mlops-prod-a", **settings)
    client("cloudwatch").put_metric_alarm(AlarmName="mlops-prod-a", **settings)
    with refused("cloudwatch:DeleteAlarms", "mlops-prod-a"):
        cloudwatch.delete_alarms(AlarmNames=["mlops-dev-a", "mlops-prod-a"])
    with refused("cloudwatch:DescribeAlarms"):
        cloudwatch.describe_alarms()
    cloudwatch.delete_alarms(AlarmNames=["mlops-dev-a"])


def test_a_monitor_sends_events_in_its_own_name_only(pod: Any) -> None:
    bus = f"arn:aws:events:eu-west-1:{ACCOUNT}:event-bus/default"
    sender = pod(
        allow(
            "events:PutEvents",
            bus,
            **{
                "ForAllValues:StringEquals": {"events:source": ["p.monitor.m1"], "events:detail-type": ["alarm"]},
                "Null": {"events:source": "false"},
            },
        )
    )["events"]

    def put(*entries: dict[str, Any]) -> Any:
        return sender.put_events(Entries=[{"DetailType": "alarm", "Detail": "{}", **entry} for entry in entries])

    assert put({"Source": "p.monitor.m1"})["FailedEntryCount"] == 0
    for entries in (
        [{"Source": "p.monitor.m2"}],
        [{"Source": "p.monitor.m1"}, {"Source": "p.monitor.m2"}],
        [{"Source": "p.monitor.m1", "DetailType": "other"}],
        [{"Source": "p.monitor.m1", "EventBusName": "other"}],
    ):
        with refused("events:PutEvents"):
            put(*entries)


def test_rules_connections_and_destinations_are_judged_by_their_names(pod: Any) -> None:
    base = f"arn:aws:events:eu-west-1:{ACCOUNT}"
    kinds = ("rule", "connection", "api-destination")
    events = pod(allow("events:*", [f"{base}:{kind}/p-dev-*" for kind in kinds]))["events"]
    with refused("events:PutRule", "rule/p-prod-a"):
        events.put_rule(Name="p-prod-a", EventPattern='{"source": ["x"]}')
    with refused("events:DescribeConnection", "connection/p-prod"):
        events.describe_connection(Name="p-prod-github")
    with refused("events:DeleteApiDestination", "api-destination/p-prod"):
        events.delete_api_destination(Name="p-prod-github")
    with refused("events:ListTargetsByRule", "rule/p-prod-a"):
        events.list_targets_by_rule(Rule="p-prod-a")
    events.put_rule(Name="p-dev-a", EventPattern='{"source": ["x"]}')
    target = {"Id": "t", "Arn": f"{base}:api-destination/p-dev-github/1", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"}
    with refused("iam:PassRole"):
        events.put_targets(Rule="p-dev-a", Targets=[target])
    parameters = {"ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": "v"}}
    with refused("secretsmanager:CreateSecret", "events!connection/p-dev-github"):
        events.create_connection(Name="p-dev-github", AuthorizationType="API_KEY", AuthParameters=parameters)


def test_a_policy_that_nobody_could_change_again_is_refused(
    make: Any, bucket: str, client: Callable[[str], Any], name: str
) -> None:
    key = make("aws:kms/key:Key", name).outputs["arn"]
    call: Callable[[], object]
    for text in ("{}", "[", '{"Statement": [{"Effect": "Allow"}]}'):
        for call, code in (
            (lambda: client("s3").put_bucket_policy(Bucket=bucket, Policy=text), "MalformedPolicy"),  # noqa: B023
            (
                lambda: client("kms").put_key_policy(KeyId=key, PolicyName="default", Policy=text),  # noqa: B023
                "MalformedPolicyDocumentException",
            ),
        ):
            with pytest.raises(ClientError) as refused_:
                call()
            assert refused_.value.response["Error"]["Code"] == code
    assert client("s3").list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"] == key
