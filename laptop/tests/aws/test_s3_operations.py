"""Every operation of S3 is judged by its documented actions, or refused because moto does not implement it."""

from __future__ import annotations

from typing import Any

import boto3
import botocore.model
import pytest
from botocore.config import Config

from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.s3_operations import operation_of
from laptop.aws.access.s3_permissions import needs

# Operation -> actions by "Required permissions for Amazon S3 API operations", with the fewest parameters.
ACTIONS = {
    "AbortMultipartUpload": {"AbortMultipartUpload"},
    "CompleteMultipartUpload": {"PutObject"},
    "CopyObject": {"PutObject", "GetObject"},
    "CreateBucket": {"CreateBucket"},
    "CreateMultipartUpload": {"PutObject"},
    "DeleteBucket": {"DeleteBucket"},
    "DeleteBucketCors": {"PutBucketCORS"},
    "DeleteBucketEncryption": {"PutEncryptionConfiguration"},
    "DeleteBucketLifecycle": {"PutLifecycleConfiguration"},
    "DeleteBucketOwnershipControls": {"PutBucketOwnershipControls"},
    "DeleteBucketPolicy": {"DeleteBucketPolicy"},
    "DeleteBucketReplication": {"PutReplicationConfiguration"},
    "DeleteBucketTagging": {"PutBucketTagging"},
    "DeleteBucketWebsite": {"DeleteBucketWebsite"},
    "DeleteObject": {"DeleteObject"},
    "DeleteObjectTagging": {"DeleteObjectTagging"},
    "DeletePublicAccessBlock": {"PutBucketPublicAccessBlock"},
    "GetBucketAccelerateConfiguration": {"GetAccelerateConfiguration"},
    "GetBucketAcl": {"GetBucketAcl"},
    "GetBucketCors": {"GetBucketCORS"},
    "GetBucketEncryption": {"GetEncryptionConfiguration"},
    "GetBucketInventoryConfiguration": {"GetInventoryConfiguration"},
    "GetBucketLifecycle": {"GetLifecycleConfiguration"},
    "GetBucketLifecycleConfiguration": {"GetLifecycleConfiguration"},
    "GetBucketLocation": {"GetBucketLocation"},
    "GetBucketLogging": {"GetBucketLogging"},
    "GetBucketNotification": {"GetBucketNotification"},
    "GetBucketNotificationConfiguration": {"GetBucketNotification"},
    "GetBucketOwnershipControls": {"GetBucketOwnershipControls"},
    "GetBucketPolicy": {"GetBucketPolicy"},
    "GetBucketPolicyStatus": {"GetBucketPolicyStatus"},
    "GetBucketReplication": {"GetReplicationConfiguration"},
    "GetBucketTagging": {"GetBucketTagging"},
    "GetBucketVersioning": {"GetBucketVersioning"},
    "GetBucketWebsite": {"GetBucketWebsite"},
    "GetObject": {"GetObject"},
    "GetObjectAcl": {"GetObjectAcl"},
    "GetObjectAttributes": {"GetObject", "GetObjectAttributes"},
    "GetObjectLegalHold": {"GetObjectLegalHold"},
    "GetObjectLockConfiguration": {"GetBucketObjectLockConfiguration"},
    "GetObjectTagging": {"GetObjectTagging"},
    "GetPublicAccessBlock": {"GetBucketPublicAccessBlock"},
    "HeadBucket": {"ListBucket"},
    "HeadObject": {"GetObject"},
    "ListBucketInventoryConfigurations": {"GetInventoryConfiguration"},
    "ListBuckets": {"ListAllMyBuckets"},
    "ListMultipartUploads": {"ListBucketMultipartUploads"},
    "ListObjectVersions": {"ListBucketVersions"},
    "ListObjects": {"ListBucket"},
    "ListObjectsV2": {"ListBucket"},
    "ListParts": {"ListMultipartUploadParts"},
    "PutBucketAccelerateConfiguration": {"PutAccelerateConfiguration"},
    "PutBucketAcl": {"PutBucketAcl"},
    "PutBucketCors": {"PutBucketCORS"},
    "PutBucketEncryption": {"PutEncryptionConfiguration"},
    "PutBucketInventoryConfiguration": {"PutInventoryConfiguration"},
    "PutBucketLifecycle": {"PutLifecycleConfiguration"},
    "PutBucketLifecycleConfiguration": {"PutLifecycleConfiguration"},
    "PutBucketLogging": {"PutBucketLogging"},
    "PutBucketNotification": {"PutBucketNotification"},
    "PutBucketNotificationConfiguration": {"PutBucketNotification"},
    "PutBucketOwnershipControls": {"PutBucketOwnershipControls"},
    "PutBucketPolicy": {"PutBucketPolicy"},
    "PutBucketReplication": {"PutReplicationConfiguration"},
    "PutBucketTagging": {"PutBucketTagging"},
    "PutBucketVersioning": {"PutBucketVersioning"},
    "PutBucketWebsite": {"PutBucketWebsite"},
    "PutObject": {"PutObject"},
    "PutObjectAcl": {"PutObjectAcl"},
    "PutObjectLegalHold": {"PutObjectLegalHold"},
    "PutObjectLockConfiguration": {"PutBucketObjectLockConfiguration"},
    "PutObjectRetention": {"PutObjectRetention"},
    "PutObjectTagging": {"PutObjectTagging"},
    "PutPublicAccessBlock": {"PutBucketPublicAccessBlock"},
    "RestoreObject": {"RestoreObject"},
    "SelectObjectContent": {"GetObject"},
    "UploadPart": {"PutObject"},
    "UploadPartCopy": {"PutObject", "GetObject"},
}
JUDGED_ONE_BY_ONE = {"DeleteObjects"}


class CapturedError(Exception):
    """A request that was not sent."""


CLIENT = boto3.client(
    "s3",
    endpoint_url="http://127.0.0.1:1",
    region_name="eu-west-1",
    aws_access_key_id="AKIA0000000000000000",
    aws_secret_access_key="x",
    config=Config(s3={"addressing_style": "path"}),
)
OPERATIONS = sorted(CLIENT.meta.service_model.operation_names)


def value(shape: Any) -> Any:
    """Return the smallest value of a shape that botocore sends."""
    if getattr(shape, "is_tagged_union", False):
        name, member = next(iter(shape.members.items()))
        return {name: value(member)}
    if shape.type_name == "structure":
        return {name: value(shape.members[name]) for name in shape.required_members}
    if shape.type_name == "list":
        return [value(shape.member)]
    if shape.type_name == "string":
        known = {"BucketName": "b", "CopySource": "b/from"}
        return shape.enum[0] if shape.enum else known.get(shape.name, "k" * shape.metadata.get("min", 1))
    return {"blob": b"x", "boolean": True, "map": {}, "timestamp": 0}.get(shape.type_name, 1)


def request(operation: str, **more: Any) -> Request:
    """Return the request that botocore sends for an operation."""

    def capture(request: Any, **_: Any) -> None:
        raise CapturedError(request)

    model = CLIENT.meta.service_model.operation_model(operation)
    given = {**(value(model.input_shape) if model.input_shape else {}), **more}
    CLIENT.meta.events.register_last("before-send.s3", capture)
    try:
        getattr(CLIENT, botocore.xform_name(operation))(**given)
    except CapturedError as captured:
        sent = captured.args[0]
        headers = {
            name.lower(): text.decode() if isinstance(text, bytes) else str(text) for name, text in sent.headers.items()
        }
        body = sent.body if isinstance(sent.body, bytes) else (sent.body.read() if sent.body else b"")
        return Request("s3", "eu-west-1", sent.method, sent.url.removeprefix("http://127.0.0.1:1"), headers, body)
    finally:
        CLIENT.meta.events.unregister("before-send.s3", capture)
    raise AssertionError(f"{operation} was not sent")


def actions(judged: Request) -> set[str]:
    """Return the S3 actions that a request needs, without the listing that tells of a missing object."""
    found = {need.action.removeprefix("s3:") for need in needs(judged)}
    return found - {"ListBucket"} if len(found) > 1 else found


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name in ACTIONS])
def test_an_operation_needs_its_documented_actions(operation: str) -> None:
    more = {"CreateBucketConfiguration": {"LocationConstraint": "eu-west-1"}} if operation == "CreateBucket" else {}
    assert actions(request(operation, **more)) == ACTIONS[operation]


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - ACTIONS.keys() - JUDGED_ONE_BY_ONE))
def test_an_operation_that_moto_does_not_implement_is_refused(operation: str) -> None:
    if operation in ("ListDirectoryBuckets", "WriteGetObjectResponse"):
        pytest.skip("goes to another endpoint than that of buckets")
    with pytest.raises(RequestRefusedError) as refused:
        operation_of(request(operation))
    assert refused.value.status == 501


def test_the_operations_of_the_table_exist() -> None:
    known = set(OPERATIONS)
    assert {*ACTIONS, *JUDGED_ONE_BY_ONE} <= known


VERSIONS = {
    "DeleteObject": {"DeleteObjectVersion"},
    "DeleteObjectTagging": {"DeleteObjectVersionTagging"},
    "GetObject": {"GetObjectVersion"},
    "GetObjectAcl": {"GetObjectVersionAcl"},
    "GetObjectAttributes": {"GetObjectVersion", "GetObjectVersionAttributes"},
    "GetObjectLegalHold": {"GetObjectLegalHold"},
    "GetObjectTagging": {"GetObjectVersionTagging"},
    "HeadObject": {"GetObjectVersion"},
    "PutObjectLegalHold": {"PutObjectLegalHold"},
    "PutObjectRetention": {"PutObjectRetention"},
    "PutObjectTagging": {"PutObjectVersionTagging"},
}


@pytest.mark.parametrize("operation", VERSIONS)
def test_an_operation_on_a_version_needs_the_actions_for_versions(operation: str) -> None:
    assert actions(request(operation, VersionId="v1")) == VERSIONS[operation]


@pytest.mark.parametrize(
    ("operation", "more", "expected"),
    [
        ("PutObject", {"Tagging": "a=b"}, {"PutObject", "PutObjectTagging"}),
        ("PutObject", {"ACL": "private"}, {"PutObject", "PutObjectAcl"}),
        ("PutObject", {"GrantRead": "id=1"}, {"PutObject", "PutObjectAcl"}),
        ("PutObject", {"IfMatch": "x"}, {"PutObject", "GetObject"}),
        ("PutObject", {"ObjectLockLegalHoldStatus": "ON"}, {"PutObject", "PutObjectLegalHold"}),
        (
            "PutObject",
            {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": 1},
            {"PutObject", "PutObjectRetention"},
        ),
        ("CreateMultipartUpload", {"Tagging": "a=b"}, {"PutObject", "PutObjectTagging"}),
        ("CreateMultipartUpload", {"GrantFullControl": "id=1"}, {"PutObject", "PutObjectAcl"}),
        ("CopyObject", {"CopySource": "b/from?versionId=v1"}, {"PutObject", "GetObjectVersion"}),
        ("DeleteObject", {"BypassGovernanceRetention": True}, {"DeleteObject", "BypassGovernanceRetention"}),
        (
            "PutObjectRetention",
            {"BypassGovernanceRetention": True},
            {"PutObjectRetention", "BypassGovernanceRetention"},
        ),
        ("CreateBucket", {"ACL": "private"}, {"CreateBucket", "PutBucketAcl"}),
        ("CreateBucket", {"GrantWrite": "id=1"}, {"CreateBucket", "PutBucketAcl"}),
        ("CreateBucket", {"ObjectOwnership": "ObjectWriter"}, {"CreateBucket", "PutBucketOwnershipControls"}),
        (
            "CreateBucket",
            {"ObjectLockEnabledForBucket": True},
            {"CreateBucket", "PutBucketObjectLockConfiguration", "PutBucketVersioning"},
        ),
        (
            "CreateBucket",
            {"CreateBucketConfiguration": {"Tags": [{"Key": "a", "Value": "b"}]}},
            {"CreateBucket", "TagResource"},
        ),
    ],
)
def test_parameters_of_a_request_need_actions_of_their_kind(
    operation: str, more: dict[str, Any], expected: set[str]
) -> None:
    assert actions(request(operation, **more)) == expected


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("PUT", "/b?tagging=&policy="),
        ("PUT", "/b?tagging&%70olicy"),
        ("PUT", "/b?tagging&x-id=1&logging"),
        ("PUT", "/b?policy&policy"),
        ("DELETE", "/b?tagging&policy"),
        ("DELETE", "/b?metrics&id=1"),  # moto deletes the bucket
        ("DELETE", "/b?inventory&id=1"),
        ("DELETE", "/b?prefix=x"),
        ("HEAD", "/b?policy"),
        ("POST", "/b"),
        ("PUT", "/b?uploads"),
        ("PUT", "/b?retention"),
        ("GET", "/b/k?retention"),  # moto returns the content
        ("GET", "/b/k?torrent"),
        ("GET", "/b/k?tagging&acl"),
        ("GET", "/b/k?tagging&uploadId=1"),
        ("GET", "/b/k?versionId=a&versionId=b"),
        ("GET", "/b/k?versionId="),
        ("GET", "/b/k?anything"),
        ("PUT", "/b/k?partNumber=1"),
        ("PUT", "/b/k?uploadId=1"),
        ("PUT", "/b/k?versionId=v1"),
        ("PUT", "/b/k?acl&versionId=v1"),  # moto changes another version
        ("DELETE", "/b/k?acl"),
        ("DELETE", "/b/k?retention"),
        ("POST", "/b/k"),
        ("POST", "/b/k?delete"),
        ("OPTIONS", "/b/k"),
        ("PUT", "/"),
    ],
)
def test_a_request_that_is_not_one_known_operation_is_refused(method: str, uri: str) -> None:
    with pytest.raises(RequestRefusedError):
        operation_of(Request("s3", "eu-west-1", method, uri, {}, b""))


@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x"])
def test_a_form_is_refused(type_: str) -> None:
    with pytest.raises(RequestRefusedError, match="content of the type"):
        operation_of(Request("s3", "eu-west-1", "PUT", "/b/k?tagging", {"content-type": type_}, b"versionId=v1"))


@pytest.mark.parametrize("source", ["//a/b/k", "x:b/k", "b/k;x", "b/k#x", "b/k?x=1", "b", "b/", "b/k?versionId="])
def test_a_source_that_can_be_read_in_two_ways_is_refused(source: str) -> None:
    judged = Request("s3", "eu-west-1", "PUT", "/b/k", {"x-amz-copy-source": source}, b"")
    with pytest.raises(RequestRefusedError, match="x-amz-copy-source"):
        tuple(needs(judged))


def test_conditional_writes_are_seen_only_where_s3_knows_them() -> None:
    def keys(operation: str) -> set[str]:
        (first, *_) = needs(request(operation))
        judged = request(operation)
        (first, *_) = needs(
            Request("s3", "eu-west-1", judged.method, judged.uri, {**judged.headers, "if-none-match": "*"}, judged.body)
        )
        return {key for key in first.context if key == "s3:if-none-match"}

    for operation in ("PutObject", "CopyObject", "CompleteMultipartUpload"):
        assert keys(operation) == {"s3:if-none-match"}
    for operation in ("UploadPart", "UploadPartCopy", "CreateMultipartUpload", "PutObjectTagging", "GetObject"):
        assert keys(operation) == set()


def test_a_prefix_counts_for_listings_only() -> None:
    (listing,) = needs(Request("s3", "eu-west-1", "GET", "/b?list-type=2&prefix=a", {}, b""))
    assert listing.context["s3:prefix"] == ("a",)
    with pytest.raises(RequestRefusedError):
        operation_of(Request("s3", "eu-west-1", "GET", "/b?policy&prefix=a", {}, b""))
