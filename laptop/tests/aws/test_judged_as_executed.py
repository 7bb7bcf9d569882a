"""Attacks on the account: requests that the access layer could read in another way than moto."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from laptop.aws.account import Account
from laptop.tests.aws.conftest import TRUSTS_PODS
from laptop.tests.aws.test_access import ACCOUNT, allow, deny, refused

pytestmark = pytest.mark.slow


@pytest.fixture
def send(account: Account) -> Callable[..., tuple[int, str]]:
    """Return a function that signs and sends a request as it is written."""

    def call(who: Any, service: str, method: str, uri: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        host = urlsplit(account.endpoint).netloc
        key = who.credentials
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method=method, url=f"http://{host}{uri}", data=body, headers={"Host": host, **given})
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
        signer(credentials, service, account.region).add_auth(request)
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request(method, uri, body, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    return call


Send = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    "key",
    [
        "<Key >theirs</Key >",
        "<Key\n>theirs</Key>",
        "<Key><![CDATA[theirs]]></Key>",
        "<Key>&#116;heirs</Key>",
        "<Key>the<!-- -->irs</Key>",
        "<x:Key xmlns:x='y'>theirs</x:Key>",
        "<Key>mine/a</Key><Key>theirs</Key>",
        "<Key><b/>theirs</Key>",
    ],
)
def test_a_batch_deletion_is_read_as_xml(pod: Any, bucket: str, client: Any, send: Send, key: str) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key="theirs", Body=b"1")
    who = pod(allow("s3:DeleteObject", f"arn:aws:s3:::{bucket}/mine/*"))
    body = f"<Delete><Object>{key}</Object></Delete>".encode()
    status, text = send(who, "s3", "POST", f"/{bucket}?delete", body)
    assert status in (200, 400)
    assert status == 400 or "AccessDenied" in text
    assert s3.head_object(Bucket=bucket, Key="theirs")


@pytest.mark.parametrize(
    "body",
    [
        "<Delete><Object><Key a='1'>x</Key></Object></Delete>",
        "<Delete><Object><Key>x</Key><ETag>1</ETag></Object></Delete>",
        "<Delete><Object/></Delete>",
        "<Delete/>",
        "<x/>",
        "",
        "<Delete><Object><Key>x</Key></Object>",
        "<Delete>" + "<Object><Key>x</Key></Object>" * 1001 + "</Delete>",
    ],
)
def test_a_batch_deletion_that_cannot_be_read_is_refused(pod: Any, bucket: str, send: Send, body: str) -> None:
    status, text = send(pod(allow("s3:*", "*")), "s3", "POST", f"/{bucket}?delete", body.encode())
    assert (status, "MalformedXML" in text) == (400, True)


def test_a_batch_deletion_in_chunks_is_refused(pod: Any, bucket: str, send: Send) -> None:
    status, text = send(
        pod(allow("s3:*", "*")),
        "s3",
        "POST",
        f"/{bucket}?delete",
        b"0\r\n\r\n",
        **{"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
    )
    assert status in (400, 403), text


def test_a_batch_deletion_deletes_the_key_that_was_judged(pod: Any, bucket: str, client: Any, send: Send) -> None:
    s3, keys = client("s3"), (" a&<b> ", "é", "theirs")
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    who = pod(allow("s3:DeleteObject", [f"arn:aws:s3:::{bucket}/{key}" for key in keys[:2]]))
    objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in (" a&amp;&lt;b&gt; ", "é", "theirs"))
    status, _ = send(who, "s3", "POST", f"/{bucket}?delete", f"<Delete>{objects}</Delete>".encode())
    assert status == 200
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["theirs"]


def test_a_batch_deletion_deletes_what_the_caller_may_delete_and_names_the_rest(
    pod: Any, bucket: str, client: Any
) -> None:
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    kept = s3.put_object(Bucket=bucket, Key="mine/b&c", Body=b"1")["VersionId"]
    for key in ("mine/a", "theirs/<a>"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    who = pod(allow("s3:DeleteObject", f"arn:aws:s3:::{bucket}/mine/*"))["s3"]
    objects = [{"Key": "mine/a"}, {"Key": "theirs/<a>"}, {"Key": "mine/b&c", "VersionId": kept}]
    answer = who.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    assert [one["Key"] for one in answer["Deleted"]] == ["mine/a"]
    assert {(one["Key"], one["Code"]) for one in answer["Errors"]} == {
        ("theirs/<a>", "AccessDenied"),
        ("mine/b&c", "AccessDenied"),
    }
    assert "s3:DeleteObjectVersion" in answer["Errors"][1]["Message"], "a version needs an action of its own"
    assert s3.head_object(Bucket=bucket, Key="mine/b&c")["VersionId"] == kept
    refusals = who.delete_objects(Bucket=bucket, Delete={"Objects": objects[1:]})
    assert len(refusals["Errors"]) == 2
    assert "Deleted" not in refusals


def test_a_request_with_two_subresources_changes_nothing(pod: Any, bucket: str, client: Any, send: Send) -> None:
    who = pod(allow("s3:PutBucketTagging", f"arn:aws:s3:::{bucket}"))
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow("s3:*", "*"), "Principal": "*"}]})
    for uri in ("tagging=&policy=", "policy&tagging", "tagging&%70olicy"):
        status, text = send(who, "s3", "PUT", f"/{bucket}?{uri}", policy.encode())
        assert (status, "ambiguous" in text) == (400, True), uri
    with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
        client("s3").get_bucket_policy(Bucket=bucket)


def test_a_deletion_that_moto_does_not_know_deletes_no_bucket(pod: Any, bucket: str, client: Any, send: Send) -> None:
    status, _ = send(pod(allow("s3:*", "*")), "s3", "DELETE", f"/{bucket}?metrics&id=1")
    assert status == 501
    assert client("s3").head_bucket(Bucket=bucket)


def test_retention_is_bypassed_only_with_permission_whatever_the_value(
    pod: Any, account: Account, client: Any, name: str, send: Send
) -> None:
    s3, locked = client("s3"), f"locked-{name}"
    where = {"LocationConstraint": account.region}
    s3.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
    version = s3.put_object(Bucket=locked, Key="a", Body=b"1")["VersionId"]
    who = pod(allow("s3:DeleteObject*", "*"))
    for value in ("true", "1", "True ", "false"):
        headers = {"x-amz-bypass-governance-retention": value}
        status, text = send(who, "s3", "DELETE", f"/{locked}/a?versionId={version}", **headers)
        assert (status, "BypassGovernanceRetention" in text) == (403, True), value


def test_a_copy_is_judged_by_the_object_that_moto_copies(pod: Any, bucket: str, client: Any, send: Send) -> None:
    client("s3").put_object(Bucket=bucket, Key="theirs/x", Body=b"secret")
    who = pod(
        allow("s3:GetObject", [f"arn:aws:s3:::mine/{bucket}/*", f"arn:aws:s3:::{bucket}/theirs/x;y"]),
        allow("s3:*", f"arn:aws:s3:::{bucket}/mine/*"),
    )
    for source in (f"//mine/{bucket}/theirs/x", f"{bucket}/theirs/x;y", f"{bucket}/theirs/x#y"):
        status, _ = send(who, "s3", "PUT", f"/{bucket}/mine/a", **{"x-amz-copy-source": source})
        assert status == 400, source


def test_a_conditional_write_never_replaces_an_object(pod: Any, bucket: str, client: Any, send: Send) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key="own/kept", Body=b"1")
    s3.put_object(Bucket=bucket, Key="own/other", Body=b"2")
    arn = f"arn:aws:s3:::{bucket}/own/*"
    who = pod(allow("s3:PutObject", arn, Null={"s3:if-none-match": "false"}), allow("s3:GetObject", arn))
    with refused("s3:PutObject"):
        who["s3"].put_object(Bucket=bucket, Key="own/kept", Body=b"2")
    for value in ("*", '"no-such-etag"'):
        status, _ = send(who, "s3", "PUT", f"/{bucket}/own/kept", b"2", **{"if-none-match": value})
        assert status == (412 if value == "*" else 501)
        copied = {"if-none-match": value, "x-amz-copy-source": f"{bucket}/own/other"}
        status, _ = send(who, "s3", "PUT", f"/{bucket}/own/kept", **copied)
        assert status == (412 if value == "*" else 501)
        status, _ = send(who, "s3", "POST", f"/{bucket}/own/kept?uploads", **{"if-none-match": value})
        assert status == 403, "an upload in parts does not create the object yet"
    assert s3.get_object(Bucket=bucket, Key="own/kept")["Body"].read() == b"1"
    new = who["s3"].put_object(Bucket=bucket, Key="own/new", Body=b"1", IfNoneMatch="*")
    assert new["ETag"]


def test_a_replacement_names_the_content_that_it_replaces(pod: Any, bucket: str) -> None:
    arn = f"arn:aws:s3:::{bucket}/*"
    s3 = pod(allow("s3:PutObject", arn, Null={"s3:if-match": "false"}), allow(["s3:GetObject", "s3:ListBucket"], "*"))[
        "s3"
    ]
    with refused("s3:PutObject"):
        s3.put_object(Bucket=bucket, Key="head", Body=b"1")
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.put_object(Bucket=bucket, Key="head", Body=b"1", IfMatch='"x"')


def test_the_content_of_a_kms_request_does_not_choose_the_operation(
    pod: Any, make: Any, name: str, client: Any, send: Send
) -> None:
    """moto looks for a parameter `Action` in every content, and prefers it to the header."""
    key = make("aws:kms/key:Key", name).outputs["arn"]
    who = pod(allow("kms:DescribeKey", key))
    body = json.dumps({"KeyId": key, "PendingWindowInDays": 7, "x": "&Action=ScheduleKeyDeletion&"}).encode()
    headers = {"x-amz-target": "TrentService.DescribeKey", "content-type": "application/x-amz-json-1.1"}
    for more in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        status, _ = send(who, "kms", "POST", "/", body, **{**headers, **more})
        assert status == 400
    status, _ = send(who, "kms", "POST", "/", b"{}", **{**headers, "action": "ListKeys"})
    assert status == 400
    assert client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"


def test_a_key_of_another_region_does_not_stand_for_one_of_this(pod: Any, make: Any, name: str, client: Any) -> None:
    key = make("aws:kms/key:Key", name).outputs["arn"]
    elsewhere = key.replace("eu-west-1", "us-east-1")
    who = pod(allow("kms:*", f"arn:aws:kms:us-east-1:{ACCOUNT}:key/*"))["kms"]
    with pytest.raises(ClientError, match="NotFoundException"):
        who.disable_key(KeyId=elsewhere)
    assert client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"


def test_a_compressed_or_doubled_parameter_is_refused(pod: Any, send: Send) -> None:
    who = pod(allow("iam:*", "*"))
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = b"Action=GetRole&Version=2010-05-08&RoleName=a"
    for uri, content, more in (
        ("/", body + b"&RoleName=b", {}),
        ("/?RoleName=b", body, {}),
        ("/", body, {"content-encoding": "gzip"}),
        ("/", body, {"content-type": "multipart/form-data; boundary=x"}),
    ):
        status, _ = send(who, "iam", "POST", uri, content, **{**form, **more})
        assert status == 400, (uri, more)


def test_a_role_without_a_boundary_does_not_get_one_from_the_request(pod: Any, client: Any, name: str) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:*", "*")]})
    boundary = client("iam").create_policy(PolicyName=f"bound-{name}", PolicyDocument=document)["Policy"]["Arn"]
    client("iam").create_role(RoleName=f"{name}-free", AssumeRolePolicyDocument=json.dumps(TRUSTS_PODS))
    roles = f"arn:aws:iam::{ACCOUNT}:role/{name}-*"
    iam = pod(allow("iam:*", roles, StringEquals={"iam:PermissionsBoundary": boundary}))["iam"]
    iam.meta.events.register(
        "before-call.iam.PutRolePolicy", lambda params, **_: params["body"].update(PermissionsBoundary=boundary)
    )
    with refused("iam:PutRolePolicy"):
        iam.put_role_policy(RoleName=f"{name}-free", PolicyName="p", PolicyDocument=document)
    with refused("iam:UpdateAssumeRolePolicy"):  # has no such condition key
        iam.update_assume_role_policy(RoleName=f"{name}-free", PolicyDocument=json.dumps(TRUSTS_PODS))


def test_a_parameter_of_another_operation_does_not_change_the_resource(
    pod: Any, client: Any, name: str, send: Send
) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:*", "*")]})
    policy = client("iam").create_policy(PolicyName=f"p-{name}", PolicyDocument=document)["Policy"]["Arn"]
    who = pod(allow("iam:*", f"arn:aws:iam::{ACCOUNT}:role/{name}-*"))
    body = f"Action=DeletePolicy&Version=2010-05-08&PolicyArn={policy}&RoleName={name}-x"
    status, text = send(who, "iam", "POST", "/", body.encode(), **{"content-type": "application/x-www-form-urlencoded"})
    assert (status, policy in text) == (403, True)


def test_a_role_is_passed_to_pods_only_with_permission(pod: Any, client: Any, name: str) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUSTS_PODS))
    client("eks").create_cluster(
        name=name, roleArn=f"arn:aws:iam::{ACCOUNT}:role/cluster", resourcesVpcConfig={"subnetIds": []}
    )
    given = {"clusterName": name, "namespace": "n", "serviceAccount": "s", "roleArn": role}
    associates = allow("eks:*", "*")
    passes = allow("iam:PassRole", role, StringEquals={"iam:PassedToService": "pods.eks.amazonaws.com"})
    with refused("iam:PassRole", role):
        pod(associates)["eks"].create_pod_identity_association(**given)
    with refused("iam:GetRole", role):
        pod(associates, passes)["eks"].create_pod_identity_association(**given)
    elsewhere = allow("iam:PassRole", role, StringEquals={"iam:PassedToService": "ec2.amazonaws.com"})
    with refused("iam:PassRole", role):
        pod(associates, elsewhere)["eks"].create_pod_identity_association(**given)


def test_a_signed_request_exchanges_no_false_token(pod: Any, send: Send) -> None:
    role = pod(allow("s3:*", "*")).credentials["arn"]
    body = (
        f"Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={role}&RoleSessionName=xx&WebIdentityToken=abcd"
    )
    form = {"content-type": "application/x-www-form-urlencoded"}
    status, text = send(pod(allow("sts:*", "*")), "sts", "POST", "/", body.encode(), **form)
    assert (status, "InvalidIdentityToken" in text) == (400, True)


def test_policies_of_a_session_by_arn_are_refused_rather_than_ignored(pod: Any) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        pod(allow("s3:*", "*"), PolicyArns=[{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}])


def test_sessions_issued_before_a_time_can_be_revoked(pod: Any, bucket: str, client: Any) -> None:
    who = pod(allow("s3:ListBucket", "*"))
    assert who["s3"].list_objects_v2(Bucket=bucket)
    for moment, revoked in (("2000-01-01T00:00:00Z", False), ("2100-01-01T00:00:00Z", True)):
        statement = {**deny("*", "*"), "Condition": {"DateLessThan": {"aws:TokenIssueTime": moment}}}
        client("iam").put_role_policy(
            RoleName=who.credentials["role"],
            PolicyName="revoke",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )
        if revoked:
            with refused("s3:ListBucket", "explicit deny"):
                who["s3"].list_objects_v2(Bucket=bucket)
        else:
            assert who["s3"].list_objects_v2(Bucket=bucket)


def test_a_session_named_in_a_bucket_policy_is_not_limited_by_its_boundary(
    pod: Any, bucket: str, client: Any, name: str
) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListBucket", "*")]})
    boundary = client("iam").create_policy(PolicyName=f"bound-{name}", PolicyDocument=document)["Policy"]["Arn"]
    who = pod(boundary=boundary)
    client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")

    def invite(principal: str) -> None:
        statement = {**allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*"), "Principal": {"AWS": principal}}
        client("s3").put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        )

    invite(who.credentials["arn"])
    with refused("permissions boundary"):
        who["s3"].get_object(Bucket=bucket, Key="a")
    invite(who["sts"].get_caller_identity()["Arn"])
    assert who["s3"].get_object(Bucket=bucket, Key="a")


def test_s3_uses_a_key_as_a_service(pod: Any, make: Any, bucket: str, client: Any, name: str) -> None:
    key = make("aws:kms/key:Key", name).outputs["arn"]
    put = allow("s3:PutObject", f"arn:aws:s3:::{bucket}/*")
    via = {"Bool": {"aws:ViaAWSService": "true"}}
    who = pod(put, allow("kms:GenerateDataKey", key, **via))
    encrypted = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    assert who["s3"].put_object(Bucket=bucket, Key="a", Body=b"1", **encrypted)
    with refused("kms:GenerateDataKey"):
        who["kms"].generate_data_key(KeyId=key, KeySpec="AES_256")
    with pytest.raises(ClientError, match="NotFoundException"):
        who["s3"].put_object(Bucket=bucket, Key="a", Body=b"1", ServerSideEncryption="aws:kms", SSEKMSKeyId=name)


def test_conditions_on_tags_of_objects_apply(pod: Any, bucket: str, client: Any) -> None:
    s3 = client("s3")
    s3.put_object(Bucket=bucket, Key="public", Body=b"1", Tagging="class=public")
    s3.put_object(Bucket=bucket, Key="secret", Body=b"1", Tagging="class=secret")
    arn = f"arn:aws:s3:::{bucket}/*"
    who = pod(
        allow("s3:GetObject", arn, StringEquals={"s3:ExistingObjectTag/class": "public"}),
        allow(["s3:PutObject", "s3:PutObjectTagging"], arn, StringEquals={"s3:RequestObjectTag/class": "public"}),
    )["s3"]
    assert who.get_object(Bucket=bucket, Key="public")
    with refused("s3:GetObject"):
        who.get_object(Bucket=bucket, Key="secret")
    with refused("s3:PutObject"):
        who.put_object(Bucket=bucket, Key="new", Body=b"1")
    assert who.put_object(Bucket=bucket, Key="new", Body=b"1", Tagging="class=public")
    with refused("s3:PutObjectTagging"):
        tags = {"TagSet": [{"Key": "class", "Value": "secret"}]}
        who.put_object_tagging(Bucket=bucket, Key="new", Tagging=tags)
    with refused("s3:GetObjectTagging"):  # a copy copies the tags
        who.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/public", Tagging="class=public")
