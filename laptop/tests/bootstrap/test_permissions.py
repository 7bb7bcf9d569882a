"""What each role from GitHub can do, and what it cannot: by real calls to the emulated account."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError

from laptop.aws.cloud import Cloud
from laptop.aws.images import Context, publish
from laptop.engine.deployment import DeploymentError
from laptop.tests.bootstrap.conftest import Ready, Somebody
from pipelines.declarations.environment import Images
from pipelines.promotion.replicate_image import replicate_images
from tests.infra.conftest import ENVIRONMENTS
from tests.pipelines.promotion.image_server import registered

MODEL = "diabetes-progression"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {"StringEquals": {"aws:RequestTag/eks-cluster-name": "mlops-dev"}},
            }
        ],
    }
)
EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})

Call = Callable[[Somebody, Ready], Any]


@contextmanager
def refused(action: str) -> Iterator[None]:
    """Expects that the account refuses an action for want of permission, and names it."""
    with pytest.raises(ClientError) as error:
        yield
    response = error.value.response
    assert "AccessDenied" in response["Error"]["Code"], response
    assert action in response["Error"]["Message"], response


def bucket(environment: str, purpose: str) -> str:
    return f"mlops-{environment}-{purpose}-123456789012"


def boundary(environment: str) -> str:
    return f"arn:aws:iam::123456789012:policy/bootstrap/mlops-{environment}-boundary"


def role(environment: str, workload: str = f"serve-{MODEL}") -> str:
    return f"mlops-{environment}-{workload}"


def key(ready: Ready, environment: str, purpose: str) -> str:
    """ARN of a key of an environment."""
    alias = f"alias/mlops-{environment}-{purpose}"
    return str(ready.operator["kms"].describe_key(KeyId=alias)["KeyMetadata"]["Arn"])


def put(environment: str, purpose: str, name: str) -> Call:
    return lambda who, _: who["s3"].put_object(Bucket=bucket(environment, purpose), Key=name, Body=b"1")


def sign(environment: str, **more: Any) -> Call:
    how = {"Message": b"m", "MessageType": "RAW", "SigningAlgorithm": "ECDSA_SHA_256", **more}
    return lambda who, ready: who["kms"].sign(KeyId=key(ready, environment, "signing"), **how)


@pytest.fixture(scope="module")
def dev(provisioned: Ready) -> Somebody:
    return provisioned.as_job("dev")


@pytest.fixture(scope="module")
def staging(provisioned: Ready) -> Somebody:
    return provisioned.as_job("staging")


@pytest.fixture(scope="module")
def preview(provisioned: Ready) -> Somebody:
    return provisioned.as_job("preview")


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_a_deploy_role_brings_its_environment_up_and_then_finds_nothing_to_do(
    provisioned: Ready, environment: str
) -> None:
    who = provisioned.as_job(environment)
    again = provisioned.deployment(who, environment).up()
    assert again.changes == ()
    assert provisioned.deployment(who, environment).refresh().changes == ()


def test_a_deploy_role_changes_what_the_program_changes(provisioned: Ready, dev: Somebody) -> None:
    file = provisioned.project / "Pulumi.dev.yaml"
    file.write_text(file.read_text().replace("cost_centre: ml-research", "cost_centre: another"))
    assert provisioned.deployment(dev, "dev").up().counts["update"] > 10
    tags = dev["iam"].get_role(RoleName=role("dev"))["Role"]["Tags"]
    assert {"Key": "cost-centre", "Value": "another"} in tags


def test_a_deploy_role_cannot_bring_another_environment_up(provisioned: Ready, dev: Somebody) -> None:
    with pytest.raises(DeploymentError, match="AccessDenied"):
        provisioned.deployment(dev, "prod").up()


def test_a_preview_shows_an_environment_and_its_drift_and_changes_nothing(
    provisioned: Ready, preview: Somebody
) -> None:
    assert provisioned.deployment(preview, "staging").preview().changes == ()
    assert provisioned.deployment(preview, "dev").refresh().changes == ()


@pytest.mark.parametrize(
    ("action", "call"),
    [
        ("s3:PutObject", put("staging", "registry", f"ledger/{MODEL}/0000000001.dsse.json")),
        ("s3:PutObject", put("staging", "registry", f"quarantine/{MODEL}/x.json")),
        ("s3:PutObject", put("staging", "lake", "mlops_staging/t/metadata/x.json")),
        ("s3:PutObject", put("prod", "registry", "bundles/x")),
        ("s3:GetObject", lambda who, _: who["s3"].get_object(Bucket=bucket("staging", "lake"), Key="x")),
        (
            "s3:PutBucketPolicy",
            lambda who, _: who["s3"].put_bucket_policy(Bucket=bucket("staging", "registry"), Policy=EVERYTHING),
        ),
        ("s3:DeleteBucket", lambda who, _: who["s3"].delete_bucket(Bucket=bucket("staging", "landing"))),
        ("kms:Sign", sign("staging")),
        (
            "kms:TagResource",
            lambda who, ready: who["kms"].tag_resource(
                KeyId=key(ready, "staging", "data"), Tags=[{"TagKey": "environment", "TagValue": "dev"}]
            ),
        ),
        (
            "kms:CreateAlias",
            lambda who, ready: who["kms"].create_alias(
                AliasName="alias/mlops-dev-mine", TargetKeyId=key(ready, "staging", "data")
            ),
        ),
        (
            "kms:CreateKey",
            lambda who, _: who["kms"].create_key(Tags=[{"TagKey": "environment", "TagValue": "staging"}]),
        ),
        ("kms:CreateKey", lambda who, _: who["kms"].create_key()),
        (
            "kms:ScheduleKeyDeletion",
            lambda who, ready: who["kms"].schedule_key_deletion(KeyId=key(ready, "staging", "data")),
        ),
        ("glue:DeleteDatabase", lambda who, _: who["glue"].delete_database(Name="mlops_staging")),
        ("ecr:DeleteRepository", lambda who, _: who["ecr"].delete_repository(repositoryName="mlops-staging/serving")),
        (
            "iam:PutRolePolicy",
            lambda who, _: who["iam"].put_role_policy(
                RoleName=role("staging"), PolicyName="workload", PolicyDocument=EVERYTHING
            ),
        ),
        (
            "iam:UpdateAssumeRolePolicy",
            lambda who, _: who["iam"].update_assume_role_policy(RoleName=role("staging"), PolicyDocument=TRUST),
        ),
        ("iam:DeleteRole", lambda who, _: who["iam"].delete_role(RoleName=role("staging"))),
    ],
)
def test_what_deploys_dev_cannot_touch_another_environment(
    provisioned: Ready, dev: Somebody, action: str, call: Call
) -> None:
    with refused(action):
        call(dev, provisioned)


def make_role(name: str, **more: Any) -> Call:
    return lambda who, _: who["iam"].create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, **more)


@pytest.mark.parametrize(
    "call",
    [
        make_role(role("dev", "evil")),
        make_role(role("dev", "evil"), PermissionsBoundary=boundary("staging")),
        make_role(role("dev", "evil"), PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess"),
        make_role(role("staging", "evil"), PermissionsBoundary=boundary("dev")),
        make_role("mlops-deploy-dev", PermissionsBoundary=boundary("dev")),
        make_role("another", PermissionsBoundary=boundary("dev")),
        make_role(role("dev", "evil"), PermissionsBoundary=boundary("dev"), Path="/bootstrap/"),
    ],
)
def test_a_role_is_made_only_under_the_boundary_and_the_name_of_its_environment(
    provisioned: Ready, dev: Somebody, call: Call
) -> None:
    with refused("iam:CreateRole"):
        call(dev, provisioned)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        (
            "iam:PutRolePolicy",
            lambda iam: iam.put_role_policy(RoleName="mlops-deploy-dev", PolicyName="x", PolicyDocument=EVERYTHING),
        ),
        (
            "iam:UpdateAssumeRolePolicy",
            lambda iam: iam.update_assume_role_policy(RoleName="mlops-deploy-dev", PolicyDocument=TRUST),
        ),
        (
            "iam:AttachRolePolicy",
            lambda iam: iam.attach_role_policy(RoleName="mlops-deploy-dev", PolicyArn=boundary("dev")),
        ),
        ("iam:AttachRolePolicy", lambda iam: iam.attach_role_policy(RoleName=role("dev"), PolicyArn=boundary("dev"))),
        (
            "iam:DeleteRolePermissionsBoundary",
            lambda iam: iam.delete_role_permissions_boundary(RoleName=role("dev")),
        ),
        (
            "iam:PutRolePermissionsBoundary",
            lambda iam: iam.put_role_permissions_boundary(
                RoleName=role("dev"), PermissionsBoundary=boundary("staging")
            ),
        ),
        (
            "iam:CreatePolicyVersion",
            lambda iam: iam.create_policy_version(
                PolicyArn=boundary("dev"), PolicyDocument=EVERYTHING, SetAsDefault=True
            ),
        ),
        ("iam:DeletePolicy", lambda iam: iam.delete_policy(PolicyArn=boundary("dev"))),
        ("iam:CreatePolicy", lambda iam: iam.create_policy(PolicyName="x", PolicyDocument=EVERYTHING)),
        ("iam:CreateUser", lambda iam: iam.create_user(UserName="mlops-dev-me")),
        ("iam:CreateAccessKey", lambda iam: iam.create_access_key(UserName="operator")),
        (
            "iam:DeleteOpenIDConnectProvider",
            lambda iam: iam.delete_open_id_connect_provider(
                OpenIDConnectProviderArn="arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
            ),
        ),
    ],
)
@pytest.mark.parametrize("name", ["dev", "preview"])
def test_no_role_can_widen_itself_or_what_bounds_it(
    provisioned: Ready, name: str, action: str, call: Callable[[Any], Any]
) -> None:
    with refused(action):
        call(provisioned.as_job(name)["iam"])


def test_nobody_gets_from_one_role_into_another(provisioned: Ready, dev: Somebody) -> None:
    for arn in (provisioned.role("prod"), provisioned.role("dev"), f"arn:aws:iam::123456789012:role/{role('dev')}"):
        with refused("sts:AssumeRole"):
            dev["sts"].assume_role(RoleArn=arn, RoleSessionName="again")


def test_a_role_that_a_deployment_gives_everything_can_still_do_only_what_the_boundary_lets_it(
    provisioned: Ready, dev: Somebody
) -> None:
    ready, evil = provisioned, role("dev", "evil")
    arn = dev["iam"].create_role(RoleName=evil, AssumeRolePolicyDocument=TRUST, PermissionsBoundary=boundary("dev"))[
        "Role"
    ]["Arn"]
    dev["iam"].put_role_policy(RoleName=evil, PolicyName="everything", PolicyDocument=EVERYTHING)
    tags = [{"Key": "eks-cluster-name", "Value": "mlops-dev"}]
    pod = ready.somebody(
        **ready.pod_identity["sts"].assume_role(RoleArn=arn, RoleSessionName="pod-1", Tags=tags)["Credentials"]
    )

    pod["s3"].put_object(Bucket=bucket("dev", "logs"), Key="inference/x", Body=b"1")
    with refused("s3:PutObject"):
        put("staging", "registry", "bundles/x")(pod, ready)
    with refused("s3:DeleteObject"):
        pod["s3"].delete_object(Bucket=bucket("dev", "logs"), Key="inference/x")
    with refused("s3:GetObject"):
        pod["s3"].get_object(Bucket=ready.outputs["state_bucket"], Key=".pulumi/stacks/mlops/dev.json")
    with refused("kms:Sign"):
        sign("staging")(pod, ready)
    for action, call in {
        "iam:CreateUser": lambda: pod["iam"].create_user(UserName="me"),
        "iam:PutRolePolicy": lambda: pod["iam"].put_role_policy(
            RoleName=evil, PolicyName="x", PolicyDocument=EVERYTHING
        ),
        "sts:AssumeRole": lambda: pod["sts"].assume_role(RoleArn=ready.role("dev"), RoleSessionName="up"),
    }.items():
        with refused(action):
            call()
    dev["iam"].delete_role_policy(RoleName=evil, PolicyName="everything")
    dev["iam"].delete_role(RoleName=evil)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        ("s3:DeleteBucket", lambda who, _: who["s3"].delete_bucket(Bucket=bucket("staging", "landing"))),
        ("s3:DeleteObject", lambda who, _: who["s3"].delete_object(Bucket=bucket("staging", "registry"), Key="x")),
        (
            "kms:ScheduleKeyDeletion",
            lambda who, ready: who["kms"].schedule_key_deletion(KeyId=key(ready, "staging", "signing")),
        ),
        (
            "kms:PutKeyPolicy",
            lambda who, ready: who["kms"].put_key_policy(
                KeyId=key(ready, "staging", "data"), PolicyName="default", Policy=EVERYTHING
            ),
        ),
        ("glue:DeleteTable", lambda who, _: who["glue"].delete_table(DatabaseName="mlops_staging", Name="t")),
        ("ecr:DeleteRepository", lambda who, _: who["ecr"].delete_repository(repositoryName="mlops-staging/serving")),
        ("s3:PutObject", put("staging", "landing", "diabetes-patients/x.csv")),
        ("s3:PutObject", put("staging", "logs", "inference/x")),
        ("s3:PutObject", put("staging", "registry", f"runs/{MODEL}/x.json")),
        ("kms:Sign", sign("staging", MessageType="DIGEST")),
        (
            "ecr:BatchDeleteImage",
            lambda who, _: who["ecr"].batch_delete_image(
                repositoryName="mlops-staging/serving", imageIds=[{"imageTag": "x"}]
            ),
        ),
    ],
)
def test_what_must_outlive_a_mistake_is_not_the_deployment_s_to_delete_or_to_forge(
    provisioned: Ready, staging: Somebody, action: str, call: Call
) -> None:
    with refused(action):
        call(staging, provisioned)


def test_what_may_be_lost_is_the_deployment_s_to_remove(provisioned: Ready, dev: Somebody) -> None:
    name = bucket("dev", "scratch")
    dev["s3"].create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    provisioned.operator["s3"].put_object(Bucket=name, Key="x", Body=b"1")
    dev["s3"].delete_object(Bucket=name, Key="x")
    dev["s3"].delete_bucket(Bucket=name)
    tags = [{"TagKey": "environment", "TagValue": "dev"}]
    made = dev["kms"].create_key(Tags=tags)["KeyMetadata"]["KeyId"]
    assert dev["kms"].schedule_key_deletion(KeyId=made, PendingWindowInDays=30)["DeletionDate"]


def test_a_release_is_written_down_and_brought_over_by_who_deploys_it(
    provisioned: Ready, dev: Somebody, staging: Somebody, preview: Somebody
) -> None:
    records = [(dev, "dev", "ledger/"), (dev, "dev", "quarantine/"), (dev, "dev", "reports/")]
    records += [(staging, "staging", kind) for kind in ("ledger/", "quarantine/", "reports/", "bundles/", "evidence/")]
    for who, environment, kind in records:
        put(environment, "registry", f"{kind}{MODEL}/x")(who, provisioned)
    put("dev", "landing", "diabetes-patients/x.csv")(dev, provisioned)
    provisioned.operator["s3"].put_object(Bucket=bucket("dev", "registry"), Key=f"bundles/{MODEL}/y", Body=b"1")
    for who, environment in ((dev, "dev"), (staging, "dev"), (staging, "staging"), (dev, "staging"), (preview, "dev")):
        for kind in ("ledger/", "quarantine/"):
            assert who["s3"].get_object(Bucket=bucket(environment, "registry"), Key=f"{kind}{MODEL}/x")
    for who in (staging, preview):
        assert who["s3"].get_object(Bucket=bucket("dev", "registry"), Key=f"bundles/{MODEL}/y")
    with refused("s3:GetObject"):
        dev["s3"].get_object(Bucket=bucket("staging", "registry"), Key=f"bundles/{MODEL}/x")
    for who, environment in ((dev, "dev"), (staging, "staging")):
        assert sign(environment)(who, provisioned)["Signature"]


def test_images_are_brought_over_by_who_deploys_them_and_pushed_only_to_their_own_environment(
    provisioned: Ready, staging: Somebody, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    context = Context("serving", tmp_path / "Dockerfile", (), tmp_path)
    repository = registered("dev").repositories.serving.partition("/")[2]
    digest = publish(Cloud(provisioned.as_job("dev").environ(), tmp_path), repository, context)
    with mock.patch.dict(os.environ, staging.environ()):
        replicate_images(registered("dev"), registered("staging"), Images(serving=digest))
    held = staging["ecr"].batch_get_image(
        repositoryName="mlops-staging/serving", imageIds=[{"imageDigest": digest}], acceptedMediaTypes=["*/*"]
    )["images"]
    assert "sha256:" + hashlib.sha256(held[0]["imageManifest"].encode()).hexdigest() == digest

    for environment in ("dev", "prod"):
        given: dict[str, Any] = {"repositoryName": f"mlops-{environment}/serving"}
        with refused("ecr:PutImage"):
            staging["ecr"].put_image(**given, imageManifest="{}")
        with refused("ecr:InitiateLayerUpload"):
            staging["ecr"].initiate_layer_upload(**given)
        with refused("ecr:CompleteLayerUpload"):
            staging["ecr"].complete_layer_upload(**given, uploadId="x", layerDigests=[digest])


@pytest.mark.parametrize(("environment", "other"), [("dev", "staging"), ("staging", "prod"), ("prod", "dev")])
def test_images_are_read_only_where_they_are_promoted_from(provisioned: Ready, environment: str, other: str) -> None:
    who, given = provisioned.as_job(environment)["ecr"], {"repositoryName": f"mlops-{other}/serving"}
    with refused("ecr:BatchGetImage"):
        who.batch_get_image(**given, imageIds=[{"imageTag": "x"}])
    with refused("ecr:BatchGetImage"):
        who.list_image_referrers(**given, subjectId={"imageDigest": "sha256:" + "0" * 64})
    with refused("ecr:GetDownloadUrlForLayer"):
        who.get_download_url_for_layer(**given, layerDigest="sha256:" + "0" * 64)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_state_of_a_stack_is_written_by_its_own_role_and_read_by_all(ready: Ready, environment: str) -> None:
    state, own = ready.outputs["state_bucket"], ready.as_job(environment)["s3"]
    for folder in ("stacks/mlops/{0}.json", "locks/organization/mlops/{0}/1.json", "history/mlops/{0}/1.json"):
        name = ".pulumi/" + folder.format(environment)
        own.put_object(Bucket=state, Key=name, Body=b"{}")
        for other in {*ENVIRONMENTS, "preview"} - {environment}:
            who = ready.as_job(other)["s3"]
            assert who.get_object(Bucket=state, Key=name)["Body"].read() == b"{}"
            with refused("s3:PutObject"):
                who.put_object(Bucket=state, Key=name, Body=b"{}")
            with refused("s3:DeleteObject"):
                who.delete_object(Bucket=state, Key=name)
        own.delete_object(Bucket=state, Key=name)


WRITES: dict[str, Call] = {
    "s3:PutObject": put("dev", "registry", f"ledger/{MODEL}/x"),
    "s3:DeleteObject": lambda who, _: who["s3"].delete_object(Bucket=bucket("dev", "registry"), Key="x"),
    "s3:CreateBucket": lambda who, _: who["s3"].create_bucket(
        Bucket=bucket("dev", "new"), CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    ),
    "s3:DeleteBucket": lambda who, _: who["s3"].delete_bucket(Bucket=bucket("dev", "landing")),
    "s3:PutBucketPolicy": lambda who, _: who["s3"].put_bucket_policy(
        Bucket=bucket("dev", "registry"), Policy=EVERYTHING
    ),
    "s3:PutBucketVersioning": lambda who, _: who["s3"].put_bucket_versioning(
        Bucket=bucket("dev", "registry"), VersioningConfiguration={"Status": "Suspended"}
    ),
    "s3:PutLifecycleConfiguration": lambda who, _: who["s3"].delete_bucket_lifecycle(Bucket=bucket("dev", "registry")),
    "kms:Sign": sign("dev"),
    "kms:Encrypt": lambda who, ready: who["kms"].encrypt(KeyId=key(ready, "dev", "data"), Plaintext=b"1"),
    "kms:GenerateDataKey": lambda who, ready: who["kms"].generate_data_key(
        KeyId=key(ready, "dev", "data"), KeySpec="AES_256"
    ),
    "kms:CreateKey": lambda who, _: who["kms"].create_key(Tags=[{"TagKey": "environment", "TagValue": "dev"}]),
    "kms:ScheduleKeyDeletion": lambda who, ready: who["kms"].schedule_key_deletion(KeyId=key(ready, "dev", "data")),
    "kms:PutKeyPolicy": lambda who, ready: who["kms"].put_key_policy(
        KeyId=key(ready, "dev", "data"), PolicyName="default", Policy=EVERYTHING
    ),
    "glue:UpdateTable": lambda who, _: who["glue"].update_table(
        DatabaseName="mlops_dev", TableInput={"Name": "diabetes_patients"}
    ),
    "glue:DeleteTable": lambda who, _: who["glue"].delete_table(DatabaseName="mlops_dev", Name="diabetes_patients"),
    "glue:CreateDatabase": lambda who, _: who["glue"].create_database(DatabaseInput={"Name": "mlops_dev_2"}),
    "ecr:PutImage": lambda who, _: who["ecr"].put_image(repositoryName="mlops-dev/serving", imageManifest="{}"),
    "ecr:DeleteRepository": lambda who, _: who["ecr"].delete_repository(repositoryName="mlops-dev/serving"),
    "iam:CreateRole": make_role(role("dev", "new"), PermissionsBoundary=boundary("dev")),
    "iam:TagRole": lambda who, _: who["iam"].tag_role(RoleName=role("dev"), Tags=[{"Key": "a", "Value": "b"}]),
    "iam:DeleteRolePolicy": lambda who, _: who["iam"].delete_role_policy(RoleName=role("dev"), PolicyName="workload"),
}


@pytest.mark.parametrize("action", WRITES)
def test_a_preview_can_write_nothing(provisioned: Ready, preview: Somebody, action: str) -> None:
    with refused(action):
        WRITES[action](preview, provisioned)


def test_a_preview_reads_no_data_only_what_promotions_are_judged_by(provisioned: Ready, preview: Somebody) -> None:
    for purpose, name in (
        ("landing", "diabetes-patients/x.csv"),
        ("lake", "mlops_dev/t/data/x"),
        ("logs", "lineage/x"),
    ):
        provisioned.operator["s3"].put_object(Bucket=bucket("dev", purpose), Key=name, Body=b"1")
        with refused("s3:GetObject"):
            preview["s3"].get_object(Bucket=bucket("dev", purpose), Key=name)
