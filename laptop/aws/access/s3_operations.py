"""The S3 operation that a request asks for.

moto takes the first parameter of the query that it knows and ignores the rest, and what it does not implement becomes
another operation: `DELETE /bucket?metrics` deletes the bucket. So a request must be exactly one operation that moto
executes. Everything else is refused, whoever asks.

Source: Amazon S3 API reference (methods, parameters); Amazon S3 user guide, "Required permissions for Amazon S3 API
operations" (actions).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from laptop.aws.access.request import Request, RequestRefusedError


@dataclass(frozen=True)
class S3Operation:
    """An operation of S3.

    Attributes:
        name: name of the operation (`PutBucketPolicy`).
        action: action that it needs on its bucket or object (`s3:PutBucketPolicy`).
        parameters: further parameters that its query may have.
        takes_version: True if the query may name a version of the object.
    """

    name: str
    action: str
    parameters: frozenset[str] = field(default_factory=frozenset)
    takes_version: bool = False


_LISTING = frozenset({"prefix", "delimiter", "max-keys", "encoding-type"})
_SDK = frozenset({"x-id"})
"""Parameters that SDKs add, and S3 ignores."""


def _op(name: str, action: str, *parameters: str, takes_version: bool = False) -> S3Operation:
    return S3Operation(name, f"s3:{action}", frozenset(parameters), takes_version)


_LIST_BUCKETS = S3Operation(
    "ListBuckets",
    "s3:ListAllMyBuckets",
    frozenset({"prefix", "bucket-region", "max-buckets", "continuation-token"}),
)
_LIST_V1 = S3Operation("ListObjects", "s3:ListBucket", _LISTING | {"marker"})
_LIST_V2 = S3Operation(
    "ListObjectsV2", "s3:ListBucket", _LISTING | {"list-type", "continuation-token", "start-after", "fetch-owner"}
)

# (method, subresource of the query) -> operation
_BUCKET: dict[tuple[str, str], S3Operation] = {
    ("HEAD", ""): _op("HeadBucket", "ListBucket"),
    ("PUT", ""): _op("CreateBucket", "CreateBucket"),
    ("DELETE", ""): _op("DeleteBucket", "DeleteBucket"),
    ("POST", "delete"): _op("DeleteObjects", "DeleteObject"),
    ("GET", "uploads"): S3Operation(
        "ListMultipartUploads",
        "s3:ListBucketMultipartUploads",
        _LISTING | {"key-marker", "upload-id-marker", "max-uploads"},
    ),
    ("GET", "versions"): S3Operation(
        "ListObjectVersions", "s3:ListBucketVersions", _LISTING | {"key-marker", "version-id-marker"}
    ),
    ("GET", "accelerate"): _op("GetBucketAccelerateConfiguration", "GetAccelerateConfiguration"),
    ("PUT", "accelerate"): _op("PutBucketAccelerateConfiguration", "PutAccelerateConfiguration"),
    ("GET", "acl"): _op("GetBucketAcl", "GetBucketAcl"),
    ("PUT", "acl"): _op("PutBucketAcl", "PutBucketAcl"),
    ("GET", "cors"): _op("GetBucketCors", "GetBucketCORS"),
    ("PUT", "cors"): _op("PutBucketCors", "PutBucketCORS"),
    ("DELETE", "cors"): _op("DeleteBucketCors", "PutBucketCORS"),
    ("GET", "encryption"): _op("GetBucketEncryption", "GetEncryptionConfiguration"),
    ("PUT", "encryption"): _op("PutBucketEncryption", "PutEncryptionConfiguration"),
    ("DELETE", "encryption"): _op("DeleteBucketEncryption", "PutEncryptionConfiguration"),
    ("GET", "inventory"): _op("GetBucketInventoryConfiguration", "GetInventoryConfiguration", "id"),
    ("PUT", "inventory"): _op("PutBucketInventoryConfiguration", "PutInventoryConfiguration", "id"),
    ("GET", "lifecycle"): _op("GetBucketLifecycleConfiguration", "GetLifecycleConfiguration"),
    ("PUT", "lifecycle"): _op("PutBucketLifecycleConfiguration", "PutLifecycleConfiguration"),
    ("DELETE", "lifecycle"): _op("DeleteBucketLifecycle", "PutLifecycleConfiguration"),
    ("GET", "location"): _op("GetBucketLocation", "GetBucketLocation"),
    ("GET", "logging"): _op("GetBucketLogging", "GetBucketLogging"),
    ("PUT", "logging"): _op("PutBucketLogging", "PutBucketLogging"),
    ("GET", "notification"): _op("GetBucketNotificationConfiguration", "GetBucketNotification"),
    ("PUT", "notification"): _op("PutBucketNotificationConfiguration", "PutBucketNotification"),
    ("GET", "object-lock"): _op("GetObjectLockConfiguration", "GetBucketObjectLockConfiguration"),
    ("PUT", "object-lock"): _op("PutObjectLockConfiguration", "PutBucketObjectLockConfiguration"),
    ("GET", "ownershipControls"): _op("GetBucketOwnershipControls", "GetBucketOwnershipControls"),
    ("PUT", "ownershipControls"): _op("PutBucketOwnershipControls", "PutBucketOwnershipControls"),
    ("DELETE", "ownershipControls"): _op("DeleteBucketOwnershipControls", "PutBucketOwnershipControls"),
    ("GET", "policy"): _op("GetBucketPolicy", "GetBucketPolicy"),
    ("PUT", "policy"): _op("PutBucketPolicy", "PutBucketPolicy"),
    ("DELETE", "policy"): _op("DeleteBucketPolicy", "DeleteBucketPolicy"),
    ("GET", "policyStatus"): _op("GetBucketPolicyStatus", "GetBucketPolicyStatus"),
    ("GET", "publicAccessBlock"): _op("GetPublicAccessBlock", "GetBucketPublicAccessBlock"),
    ("PUT", "publicAccessBlock"): _op("PutPublicAccessBlock", "PutBucketPublicAccessBlock"),
    ("DELETE", "publicAccessBlock"): _op("DeletePublicAccessBlock", "PutBucketPublicAccessBlock"),
    ("GET", "replication"): _op("GetBucketReplication", "GetReplicationConfiguration"),
    ("PUT", "replication"): _op("PutBucketReplication", "PutReplicationConfiguration"),
    ("DELETE", "replication"): _op("DeleteBucketReplication", "PutReplicationConfiguration"),
    ("GET", "tagging"): _op("GetBucketTagging", "GetBucketTagging"),
    ("PUT", "tagging"): _op("PutBucketTagging", "PutBucketTagging"),
    ("DELETE", "tagging"): _op("DeleteBucketTagging", "PutBucketTagging"),
    ("GET", "versioning"): _op("GetBucketVersioning", "GetBucketVersioning"),
    ("PUT", "versioning"): _op("PutBucketVersioning", "PutBucketVersioning"),
    ("GET", "website"): _op("GetBucketWebsite", "GetBucketWebsite"),
    ("PUT", "website"): _op("PutBucketWebsite", "PutBucketWebsite"),
    ("DELETE", "website"): _op("DeleteBucketWebsite", "DeleteBucketWebsite"),
}

_RESPONSE = tuple(
    f"response-{name}"
    for name in (
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
    )
)
_OBJECT: dict[tuple[str, str], S3Operation] = {
    ("GET", ""): _op("GetObject", "GetObject", "partNumber", *_RESPONSE, takes_version=True),
    ("HEAD", ""): _op("HeadObject", "GetObject", "partNumber", *_RESPONSE, takes_version=True),
    ("PUT", ""): _op("PutObject", "PutObject"),
    ("DELETE", ""): _op("DeleteObject", "DeleteObject", takes_version=True),
    ("GET", "acl"): _op("GetObjectAcl", "GetObjectAcl", takes_version=True),
    ("PUT", "acl"): _op("PutObjectAcl", "PutObjectAcl"),  # moto changes the newest version only
    ("GET", "attributes"): _op("GetObjectAttributes", "GetObjectAttributes", takes_version=True),
    ("GET", "legal-hold"): _op("GetObjectLegalHold", "GetObjectLegalHold", takes_version=True),
    ("PUT", "legal-hold"): _op("PutObjectLegalHold", "PutObjectLegalHold", takes_version=True),
    ("PUT", "retention"): _op("PutObjectRetention", "PutObjectRetention", takes_version=True),
    ("GET", "tagging"): _op("GetObjectTagging", "GetObjectTagging", takes_version=True),
    ("PUT", "tagging"): _op("PutObjectTagging", "PutObjectTagging", takes_version=True),
    ("DELETE", "tagging"): _op("DeleteObjectTagging", "DeleteObjectTagging", takes_version=True),
    ("POST", "restore"): _op("RestoreObject", "RestoreObject"),  # moto restores the newest version only
    ("POST", "select"): _op("SelectObjectContent", "GetObject", "select-type"),
    ("POST", "uploads"): _op("CreateMultipartUpload", "PutObject"),
    ("GET", "uploadId"): _op("ListParts", "ListMultipartUploadParts", "max-parts", "part-number-marker"),
    ("PUT", "uploadId"): _op("UploadPart", "PutObject", "partNumber"),
    ("POST", "uploadId"): _op("CompleteMultipartUpload", "PutObject"),
    ("DELETE", "uploadId"): _op("AbortMultipartUpload", "AbortMultipartUpload"),
}
_NOT_IMPLEMENTED = {  # by moto
    "abac",
    "analytics",
    "annotation",
    "cors-preflight",
    "intelligent-tiering",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "renameObject",
    "requestPayment",
    "session",
    "torrent",
}
_SUBRESOURCES = {sub for _, sub in (*_BUCKET, *_OBJECT) if sub} | _NOT_IMPLEMENTED


def operation_of(request: Request) -> S3Operation:
    """Return the operation of a request with a path-style URL.

    Raises:
        RequestRefusedError: it is not exactly one operation, or one that moto does not implement.
    """
    bucket, _, key = request.path.lstrip("/").partition("/")
    named = [name for name, _ in parse_qsl(urlsplit(request.uri).query, keep_blank_values=True)]
    if len(named) != len(set(named)):
        raise _invalid("a parameter of the query is given more than once")
    if "x-www-form-urlencoded" in request.content_type or "multipart/form-data" in request.content_type:
        raise _not_implemented(f"content of the type {request.content_type}")  # moto takes it for parameters
    parameters = set(named) - _SDK
    subs = parameters & _SUBRESOURCES
    if len(subs) > 1:
        raise _invalid(f"expected one subresource, found {', '.join(sorted(subs))}")
    found = _find(request, bool(bucket), bool(key), next(iter(subs), ""))
    left = parameters - subs - found.parameters - ({"versionId"} if found.takes_version else set())
    if left:
        raise _not_implemented(f"{found.name} with {', '.join(sorted(left))}")
    if "versionId" in parameters and not request.query["versionId"]:
        raise _invalid("versionId is empty")
    if found.name == "UploadPart" and "partNumber" not in parameters:
        raise _invalid("partNumber is missing")
    return found


def _find(request: Request, has_bucket: bool, has_key: bool, sub: str) -> S3Operation:
    if not has_bucket:
        if request.method == "GET" and not sub:
            return _LIST_BUCKETS
    elif has_key:
        found = _OBJECT.get((request.method, sub))
        if found is not None:
            return _with_source(found) if "x-amz-copy-source" in request.headers else found
    elif (request.method, sub) == ("GET", ""):
        return _LIST_V2 if "list-type" in request.query else _LIST_V1
    elif (request.method, sub) in _BUCKET:
        return _BUCKET[request.method, sub]
    raise _not_implemented(f"{request.method} {'?' + sub if sub else 'without a subresource'}")


def _with_source(found: S3Operation) -> S3Operation:
    """Return the operation that copies, in place of one that writes the request's content."""
    copies = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
    if found.name not in copies:
        raise _invalid(f"{found.name} has a source to copy from")
    return S3Operation(copies[found.name], found.action, found.parameters)


def _invalid(why: str) -> RequestRefusedError:
    return RequestRefusedError(400, "InvalidArgument", f"The request is ambiguous: {why}.")


def _not_implemented(what: str) -> RequestRefusedError:
    return RequestRefusedError(501, "NotImplemented", f"The laptop's S3 does not implement this: {what}.")
