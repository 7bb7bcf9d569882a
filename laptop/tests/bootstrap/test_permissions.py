"""Permissions of each role of GitHub Actions jobs, tested by real calls to the laptop's account."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.aws.cloud import Cloud
from laptop.aws.image_content import ImageContext, image, publish
from laptop.engine.program import ProgramError
from laptop.tests.bootstrap.conftest import Caller, Ready
from pipelines.declarations.errors import MlopsError
from pipelines.targets.held_stack import hold_stack
from pipelines.targets.state_bucket import StackLocks
from pipelines.targets.this_process import describe_this_process
from tests.infra.conftest import ENVIRONMENTS

pytestmark = pytest.mark.slow

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

Call = Callable[[Caller, Ready], Any]


@contextmanager
def refused(action: str) -> Iterator[None]:
    """Expect the account to deny an action by name."""
    with pytest.raises(ClientError) as error:
        yield
    response = error.value.response
    assert "AccessDenied" in response["Error"]["Code"], response
    assert action in response["Error"]["Message"], response


def _code(call: Callable[..., Any], request: dict[str, Any]) -> str:
    """Return the code with which AWS refuses a call; "" if it does not."""
    try:
        call(**request)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


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


def add(environment: str, purpose: str, name: str) -> Call:
    """Write an object that must not exist yet."""
    return lambda who, _: who["s3"].put_object(
        Bucket=bucket(environment, purpose), Key=name, Body=b"1", IfNoneMatch="*"
    )


def sign(environment: str, **more: Any) -> Call:
    how = {"Message": b"m", "MessageType": "RAW", "SigningAlgorithm": "ECDSA_SHA_256", **more}
    return lambda who, ready: who["kms"].sign(KeyId=key(ready, environment, "signing"), **how)


@pytest.fixture(scope="module")
def dev(provisioned: Ready) -> Caller:
    return provisioned.as_job("dev")


@pytest.fixture(scope="module")
def staging(provisioned: Ready) -> Caller:
    return provisioned.as_job("staging")


@pytest.fixture(scope="module")
def preview(provisioned: Ready) -> Caller:
    return provisioned.as_job("preview")


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_a_second_deployment_by_the_deploy_role_changes_nothing(provisioned: Ready, environment: str) -> None:
    who = provisioned.as_job(environment)
    again = provisioned.deployment(who, environment).up()
    assert again.changes == ()
    assert provisioned.deployment(who, environment).refresh().changes == ()


def test_a_deploy_role_can_apply_changes(provisioned: Ready, dev: Caller) -> None:
    file = provisioned.project / "Pulumi.dev.yaml"
    file.write_text(file.read_text().replace("cost_centre: ml-research", "cost_centre: another"))
    assert provisioned.deployment(dev, "dev").up().counts["update"] > 10
    tags = dev["iam"].get_role(RoleName=role("dev"))["Role"]["Tags"]
    assert {"Key": "cost-centre", "Value": "another"} in tags


def test_only_a_deploy_role_sees_load_balancers_and_cannot_change_them(
    provisioned: Ready, dev: Caller, preview: Caller
) -> None:
    assert dev["elbv2"].describe_load_balancers()["LoadBalancers"] == []
    gone = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
    reads: dict[str, dict[str, Any]] = {
        "describe_listeners": {"LoadBalancerArn": f"{gone}:loadbalancer/app/x/1"},
        "describe_rules": {"ListenerArn": f"{gone}:listener/app/x/1/2"},
        "describe_tags": {"ResourceArns": [f"{gone}:targetgroup/x/1"]},
        "describe_target_groups": {"LoadBalancerArn": f"{gone}:loadbalancer/app/x/1"},
        "describe_target_health": {"TargetGroupArn": f"{gone}:targetgroup/x/1"},
    }
    for operation, request in reads.items():
        assert "AccessDenied" not in _code(getattr(dev["elbv2"], operation), request), operation
    with refused("elasticloadbalancing:DescribeLoadBalancers"):
        preview["elbv2"].describe_load_balancers()
    with refused("elasticloadbalancing:DeleteLoadBalancer"):
        dev["elbv2"].delete_load_balancer(LoadBalancerArn=f"{gone}:loadbalancer/app/x/1")


def test_a_deploy_role_cannot_bring_another_environment_up(provisioned: Ready, dev: Caller) -> None:
    """The program begins by asking for the environment's cluster; the table below has what would come after it."""
    with pytest.raises(ProgramError, match="AccessDenied"):
        provisioned.deployment(dev, "prod").up()


def test_the_preview_role_can_preview_and_find_drift(provisioned: Ready, preview: Caller) -> None:
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
def test_the_deploy_role_of_dev_cannot_touch_another_environment(
    provisioned: Ready, dev: Caller, action: str, call: Call
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
def test_a_role_is_created_only_with_its_environment_s_boundary_and_prefix(
    provisioned: Ready, dev: Caller, call: Call
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
@pytest.mark.parametrize("name", ["dev", "preview", "images"])
def test_no_role_can_extend_its_permissions_or_its_boundary(
    provisioned: Ready, name: str, action: str, call: Callable[[Any], Any]
) -> None:
    with refused(action):
        call(provisioned.as_job(name)["iam"])


def test_no_role_can_assume_another(provisioned: Ready, dev: Caller) -> None:
    for arn in (provisioned.role("prod"), provisioned.role("dev"), f"arn:aws:iam::123456789012:role/{role('dev')}"):
        with refused("sts:AssumeRole"):
            dev["sts"].assume_role(RoleArn=arn, RoleSessionName="again")


def test_the_boundary_limits_a_role_with_all_permissions(provisioned: Ready, dev: Caller) -> None:
    ready, evil = provisioned, role("dev", "evil")
    arn = dev["iam"].create_role(RoleName=evil, AssumeRolePolicyDocument=TRUST, PermissionsBoundary=boundary("dev"))[
        "Role"
    ]["Arn"]
    dev["iam"].put_role_policy(RoleName=evil, PolicyName="everything", PolicyDocument=EVERYTHING)
    tags = [{"Key": "eks-cluster-name", "Value": "mlops-dev"}]
    pod = ready.caller(
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
    calls: dict[str, Callable[[], object]] = {
        "iam:CreateUser": lambda: pod["iam"].create_user(UserName="me"),
        "iam:PutRolePolicy": lambda: pod["iam"].put_role_policy(
            RoleName=evil, PolicyName="x", PolicyDocument=EVERYTHING
        ),
        "sts:AssumeRole": lambda: pod["sts"].assume_role(RoleArn=ready.role("dev"), RoleSessionName="up"),
    }
    for action, call in calls.items():
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
        ("s3:PutObject", put("staging", "landing", "diabetes-patients/x.csv")),
        ("s3:PutObject", put("dev", "landing", "diabetes-patients/x.csv")),
        ("s3:PutObject", put("staging", "logs", "inference/x")),
        ("s3:PutObject", put("staging", "registry", f"runs/{MODEL}/x.json")),
        ("kms:Sign", sign("staging", MessageType="DIGEST")),
    ],
)
def test_a_deploy_role_cannot_delete_or_forge_what_must_be_kept(
    provisioned: Ready, staging: Caller, action: str, call: Call
) -> None:
    with refused(action):
        call(staging, provisioned)


def test_a_deploy_role_can_delete_disposable_resources(provisioned: Ready, dev: Caller) -> None:
    name = bucket("dev", "scratch")
    dev["s3"].create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    provisioned.operator["s3"].put_object(Bucket=name, Key="x", Body=b"1")
    dev["s3"].delete_object(Bucket=name, Key="x")
    dev["s3"].delete_bucket(Bucket=name)
    tags = [{"TagKey": "environment", "TagValue": "dev"}]
    made = dev["kms"].create_key(Tags=tags)["KeyMetadata"]["KeyId"]
    assert dev["kms"].schedule_key_deletion(KeyId=made, PendingWindowInDays=30)["DeletionDate"]


def test_a_deploy_role_can_record_and_copy_a_release(
    provisioned: Ready, dev: Caller, staging: Caller, preview: Caller
) -> None:
    records = [(dev, "dev", "ledger/"), (dev, "dev", "quarantine/"), (dev, "dev", "reports/")]
    records += [(staging, "staging", kind) for kind in ("ledger/", "quarantine/", "reports/", "bundles/", "evidence/")]
    for who, environment, kind in records:
        add(environment, "registry", f"{kind}{MODEL}/x")(who, provisioned)
        with refused("s3:PutObject"):  # nothing in these is ever replaced
            put(environment, "registry", f"{kind}{MODEL}/x")(who, provisioned)
        versions = who["s3"].list_object_versions(Bucket=bucket(environment, "registry"), Prefix=f"{kind}{MODEL}/x")
        assert len(versions["Versions"]) == 1
    put("dev", "registry", "images/serving/x")(dev, provisioned)
    provisioned.operator["s3"].put_object(Bucket=bucket("dev", "registry"), Key=f"bundles/{MODEL}/y", Body=b"1")
    for who, environment in ((dev, "dev"), (staging, "dev"), (staging, "staging"), (dev, "staging"), (preview, "dev")):
        listed = who["s3"].list_object_versions(Bucket=bucket(environment, "registry"), Prefix=f"ledger/{MODEL}/")
        assert len(listed["Versions"]) == 1, "what was deleted or replaced in a ledger is seen from everywhere"
        for kind in ("ledger/", "quarantine/"):
            assert who["s3"].get_object(Bucket=bucket(environment, "registry"), Key=f"{kind}{MODEL}/x")
    for who in (staging, preview):
        assert who["s3"].get_object(Bucket=bucket("dev", "registry"), Key=f"bundles/{MODEL}/y")
    with refused("s3:GetObject"):
        dev["s3"].get_object(Bucket=bucket("staging", "registry"), Key=f"bundles/{MODEL}/x")
    for who, environment in ((dev, "dev"), (staging, "staging")):
        assert sign(environment)(who, provisioned)["Signature"]


def test_the_images_role_pushes_an_image_once_and_deletes_none(ready: Ready, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    context = ImageContext("serving", tmp_path / "Dockerfile", (), tmp_path)
    images = ready.as_job("images")
    digest = publish(Cloud(images.environ(), tmp_path), "mlops/serving", context)
    held = ready.operator["ecr"].batch_get_image(
        repositoryName="mlops/serving", imageIds=[{"imageDigest": digest}], acceptedMediaTypes=["*/*"]
    )["images"]
    assert [image["imageId"]["imageDigest"] for image in held] == [digest]
    upload = images["ecr"].initiate_layer_upload(repositoryName="mlops/serving")["uploadId"]
    layer = {"partFirstByte": 0, "partLastByte": 0, "layerPartBlob": b"1"}
    images["ecr"].upload_layer_part(repositoryName="mlops/serving", uploadId=upload, **layer)
    assert images["ecr"].get_authorization_token()["authorizationData"]
    calls: dict[str, Callable[[Any], object]] = {
        "ecr:BatchDeleteImage": lambda ecr: ecr.batch_delete_image(
            repositoryName="mlops/serving", imageIds=[{"imageDigest": digest}]
        ),
        "ecr:DeleteRepository": lambda ecr: ecr.delete_repository(repositoryName="mlops/serving", force=True),
        "ecr:SetRepositoryPolicy": lambda ecr: ecr.set_repository_policy(
            repositoryName="mlops/serving", policyText=EVERYTHING
        ),
        "ecr:CreateRepository": lambda ecr: ecr.create_repository(repositoryName="mlops/another"),
    }
    for action, call in calls.items():
        with refused(action):
            call(images["ecr"])


def test_the_images_role_reaches_no_environment(provisioned: Ready) -> None:
    images = provisioned.as_job("images")
    with refused("s3:PutObject"):
        put("dev", "registry", f"bundles/{MODEL}/x")(images, provisioned)
    with refused("s3:GetObject"):
        images["s3"].get_object(Bucket=provisioned.outputs["state_bucket"], Key=".pulumi/stacks/mlops/dev.json")
    with refused("kms:Sign"):
        sign("dev")(images, provisioned)


@pytest.mark.parametrize("name", [*ENVIRONMENTS, "preview"])
def test_the_roles_that_judge_read_what_an_image_is_but_not_its_layers(ready: Ready, tmp_path: Path, name: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    context = ImageContext("serving", tmp_path / "Dockerfile", (), tmp_path)
    publish(Cloud(ready.as_job("images").environ(), tmp_path), "mlops/serving", context)
    index, given = image(context), {"repositoryName": "mlops/serving"}
    (child,) = index.children
    ecr = ready.as_job(name)["ecr"]
    assert ecr.batch_get_image(**given, imageIds=[{"imageDigest": index.digest}])["images"]
    assert ecr.describe_images(**given, imageIds=[{"imageDigest": index.digest}])["imageDetails"]
    scan = ecr.describe_image_scan_findings(**given, imageId={"imageDigest": child})
    assert (scan["imageScanStatus"]["status"], scan["imageScanFindings"]["findings"]) == ("COMPLETE", [])
    with refused("ecr:StartImageScan"):
        ecr.start_image_scan(**given, imageId={"imageDigest": child})


@pytest.mark.parametrize("name", [*ENVIRONMENTS, "preview"])
def test_only_the_images_role_changes_the_repositories(ready: Ready, name: str) -> None:
    ecr, given = ready.as_job(name)["ecr"], {"repositoryName": "mlops/serving"}
    nothing = "sha256:" + "0" * 64
    calls: dict[str, Callable[[], object]] = {
        "ecr:PutImage": lambda: ecr.put_image(**given, imageManifest="{}"),
        "ecr:InitiateLayerUpload": lambda: ecr.initiate_layer_upload(**given),
        "ecr:CompleteLayerUpload": lambda: ecr.complete_layer_upload(**given, uploadId="x", layerDigests=[nothing]),
        "ecr:BatchDeleteImage": lambda: ecr.batch_delete_image(**given, imageIds=[{"imageTag": "x"}]),
        "ecr:GetDownloadUrlForLayer": lambda: ecr.get_download_url_for_layer(**given, layerDigest=nothing),
        "ecr:DeleteRepository": lambda: ecr.delete_repository(**given),
        "ecr:CreateRepository": lambda: ecr.create_repository(repositoryName=f"mlops-{name}/serving"),
        "ecr:GetAuthorizationToken": lambda: ecr.get_authorization_token(),
    }
    for action, call in calls.items():
        with refused(action):
            call()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_its_deploy_role_writes_a_stack_s_state_and_all_roles_read_it(ready: Ready, environment: str) -> None:
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


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_deploy_role_holds_and_unlocks_its_own_stack_and_no_other(ready: Ready, environment: str) -> None:
    state, own = ready.outputs["state_bucket"], ready.as_job(environment)["s3"]

    def locks(client: Any) -> StackLocks:
        return StackLocks(state, "", "mlops", environment, client)

    record = f".mlops/holders/mlops/{environment}.json"
    left = f".pulumi/locks/organization/mlops/{environment}/1.json"
    here = describe_this_process("up")
    lock = {"pid": here.pid, "username": here.user, "hostname": here.host, "timestamp": here.since.isoformat()}
    with hold_stack(locks(own), ready.project, "up", print):
        own.put_object(Bucket=state, Key=left, Body=json.dumps({**lock, "pid": 1 << 22}))
    assert [one.key for one in locks(own).pulumi_locks()] == [], "the lock of a dead Pulumi is removed"
    for other in {*ENVIRONMENTS, "preview", "images"} - {environment}:
        who = ready.as_job(other)["s3"]
        with refused("s3:PutObject"):
            who.put_object(Bucket=state, Key=record, Body=b"{}")
        with refused("s3:GetObject"):
            who.get_object(Bucket=state, Key=record)
        with pytest.raises(MlopsError, match="denied"), hold_stack(locks(who), ready.project, "up", print):
            pytest.fail(f"the role of {other} held {environment}")
        with refused("s3:DeleteObject"):
            who.delete_object(Bucket=state, Key=left)
    with refused("s3:DeleteObject"):
        own.delete_object(Bucket=state, Key=record)
    for name in (".mlops/holders/mlops/other.json", f".mlops/holders/other/{environment}.json", ".mlops/other"):
        with refused("s3:PutObject"):
            own.put_object(Bucket=state, Key=name, Body=b"{}")


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
    "iam:CreateRole": make_role(role("dev", "new"), PermissionsBoundary=boundary("dev")),
    "iam:TagRole": lambda who, _: who["iam"].tag_role(RoleName=role("dev"), Tags=[{"Key": "a", "Value": "b"}]),
    "iam:DeleteRolePolicy": lambda who, _: who["iam"].delete_role_policy(RoleName=role("dev"), PolicyName="workload"),
}


@pytest.mark.parametrize("action", WRITES)
def test_the_preview_role_can_write_nothing(provisioned: Ready, preview: Caller, action: str) -> None:
    with refused(action):
        WRITES[action](preview, provisioned)


REPORT = f"monitoring/models/{MODEL}/20260301T000000Z-0123456789ab.json"


def test_a_deploy_role_reads_the_reports_about_models_and_nothing_else_in_the_logs_bucket(
    provisioned: Ready, staging: Caller
) -> None:
    """It quotes them in issues. A bucket policy that lets everyone read adds nothing."""
    others = [
        REPORT.replace(".json", ".html"),
        "monitoring/data/diabetes-patients/20260301T000000Z-1.json",
        f"inference/{MODEL}/2026/03/01/00/pod-1.jsonl",
        f"lineage/observe-{MODEL}/x.json",
    ]
    for environment in ("dev", "staging"):
        for name in (REPORT, *others):
            provisioned.operator["s3"].put_object(Bucket=bucket(environment, "logs"), Key=name, Body=b"{}")
    found = staging["s3"].get_object(Bucket=bucket("staging", "logs"), Key=REPORT)
    assert found["Body"].read() == b"{}"
    listed = staging["s3"].list_objects_v2(Bucket=bucket("staging", "logs"), Prefix=f"monitoring/models/{MODEL}/")
    assert REPORT in [one["Key"] for one in listed["Contents"]], "to find the report before"
    for name in others:
        with refused("s3:GetObject"):
            staging["s3"].get_object(Bucket=bucket("staging", "logs"), Key=name)
    for reader, environment in (("staging", "dev"), ("dev", "staging"), ("prod", "staging")):
        with refused("s3:GetObject"):
            provisioned.as_job(reader)["s3"].get_object(Bucket=bucket(environment, "logs"), Key=REPORT)
    with refused("s3:PutObject"):
        staging["s3"].put_object(Bucket=bucket("staging", "logs"), Key=REPORT, Body=b"{}")


def test_the_preview_role_cannot_read_data(provisioned: Ready, preview: Caller) -> None:
    for purpose, name in (
        ("landing", "diabetes-patients/x.csv"),
        ("lake", "mlops_dev/t/data/x"),
        ("logs", "lineage/x"),
        ("logs", REPORT),
    ):
        provisioned.operator["s3"].put_object(Bucket=bucket("dev", purpose), Key=name, Body=b"1")
        with refused("s3:GetObject"):
            preview["s3"].get_object(Bucket=bucket("dev", purpose), Key=name)
