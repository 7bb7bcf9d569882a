"""Permissions of S3 requests, including those on the KMS key of an encrypted bucket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from laptop.aws.access.kms_permissions import key_need
from laptop.aws.access.policy import Document, Need, parse
from laptop.aws.access.principals import ACCOUNT, PARTITION
from laptop.aws.access.request import Request

# Subresource in the query -> action without its verb.
_BUCKET = {
    "accelerate": "AccelerateConfiguration",
    "acl": "BucketAcl",
    "analytics": "AnalyticsConfiguration",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "intelligent-tiering": "IntelligentTieringConfiguration",
    "inventory": "InventoryConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "location": "BucketLocation",
    "logging": "BucketLogging",
    "metrics": "MetricsConfiguration",
    "notification": "BucketNotification",
    "object-lock": "BucketObjectLockConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "replication": "ReplicationConfiguration",
    "requestPayment": "BucketRequestPayment",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "website": "BucketWebsite",
}
_BUCKET_LISTS = {"versions": "ListBucketVersions", "uploads": "ListBucketMultipartUploads"}
_OBJECT = {"acl": "Acl", "tagging": "Tagging", "retention": "Retention", "legal-hold": "LegalHold"}


def needs(request: Request) -> Iterator[Need]:
    """Yield the permissions of an S3 request with a path-style URL."""
    bucket, _, key = request.path.lstrip("/").partition("/")
    if not bucket:
        yield Need("s3:ListAllMyBuckets", "*")
    elif not key:
        yield from _of_bucket(request, bucket)
    else:
        yield from _of_object(request, bucket, key)


def _of_bucket(request: Request, bucket: str) -> Iterator[Need]:
    query, method = request.query, request.method
    arn = f"arn:aws:s3:::{bucket}"
    policy = _policy(bucket)
    context = {f"s3:{name}": (query[name],) for name in ("prefix", "delimiter", "max-keys") if query.get(name)}
    sub = next((name for name in query if name in _BUCKET), None)
    listing = next((name for name in query if name in _BUCKET_LISTS), None)
    if method == "POST" and "delete" in query:
        for key in re.findall(rb"<Key>(.*?)</Key>", request.body, re.DOTALL):
            yield Need("s3:DeleteObject", f"{arn}/{_unescape(key)}", {}, policy)
        return
    if sub is not None:
        verb = "Get" if method in ("GET", "HEAD") else "Put"
        if method == "DELETE" and sub in ("policy", "website"):
            verb = "Delete"
        action = f"s3:{verb}{_BUCKET[sub]}"
    elif method in ("GET", "HEAD"):
        action = f"s3:{_BUCKET_LISTS[listing]}" if listing else "s3:ListBucket"
    elif method == "PUT" and not query:
        action = "s3:CreateBucket"
    elif method == "DELETE" and not query:
        action = "s3:DeleteBucket"
    else:
        action = "s3:UnknownOperation"
    yield Need(action, arn, context, policy)


def _of_object(request: Request, bucket: str, key: str) -> Iterator[Need]:
    query, method, headers = request.query, request.method, request.headers
    arn = f"arn:aws:s3:::{bucket}/{key}"
    policy = _policy(bucket)
    version = "Version" if query.get("versionId") else ""
    context = {
        name: (headers[header],)
        for name, header in {
            "s3:x-amz-server-side-encryption": "x-amz-server-side-encryption",
            "s3:x-amz-server-side-encryption-aws-kms-key-id": "x-amz-server-side-encryption-aws-kms-key-id",
            "s3:if-none-match": "if-none-match",
            "s3:if-match": "if-match",
            "s3:x-amz-acl": "x-amz-acl",
        }.items()
        if header in headers
    }

    def need(action: str, on: str = arn) -> Need:
        return Need(f"s3:{action}", on, context, policy)

    sub = next((name for name in query if name in _OBJECT), None)
    if method in ("GET", "HEAD"):
        if "uploadId" in query:
            yield need("ListMultipartUploadParts")
        elif sub is not None:
            yield need(f"GetObject{version if sub in ('acl', 'tagging') else ''}{_OBJECT[sub]}")
        else:
            yield need(f"GetObject{version}")
            found = _object(bucket, key, query.get("versionId"))
            if found is None:  # S3 reports a missing object only to callers that may list the bucket
                yield Need("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": (key,)}, policy)
            else:
                yield from _decrypting(found, bucket, key, request.region)
    elif method == "PUT" and sub is not None:
        yield need(f"PutObject{version if sub in ('acl', 'tagging') else ''}{_OBJECT[sub]}")
    elif method in ("PUT", "POST"):
        if method == "POST" and not ({"uploads", "uploadId"} & query.keys()):
            yield need("UnknownOperation")
            return
        yield need("PutObject")
        if "if-match" in headers:
            yield need("GetObject")
        if "x-amz-tagging" in headers:
            yield need("PutObjectTagging")
        if "x-amz-acl" in headers:
            yield need("PutObjectAcl")
        if "x-amz-object-lock-mode" in headers:
            yield need("PutObjectRetention")
        if "x-amz-object-lock-legal-hold" in headers:
            yield need("PutObjectLegalHold")
        if "x-amz-copy-source" in headers:
            yield from _copied_from(headers["x-amz-copy-source"], request.region)
        yield from _encrypting(request, bucket, key)
    elif method == "DELETE":
        if "uploadId" in query:
            yield need("AbortMultipartUpload")
        elif sub is not None:
            yield need(f"DeleteObject{version}{_OBJECT[sub]}")
        else:
            yield need(f"DeleteObject{version}")
    else:
        yield need("UnknownOperation")
    if headers.get("x-amz-bypass-governance-retention", "").lower() == "true":
        yield need("BypassGovernanceRetention")


def _copied_from(source: str, region: str) -> Iterator[Need]:
    path, _, version = unquote(source).lstrip("/").partition("?versionId=")
    bucket, _, key = path.partition("/")
    yield Need(
        "s3:GetObjectVersion" if version else "s3:GetObject",
        f"arn:aws:s3:::{bucket}/{key}",
        {},
        _policy(bucket),
    )
    found = _object(bucket, key, version or None)
    if found is not None:
        yield from _decrypting(found, bucket, key, region)


def _decrypting(found: Any, bucket: str, key: str, region: str) -> Iterator[Need]:
    if found.encryption == "aws:kms" and found.kms_key_id:
        yield _key_need("kms:Decrypt", found.kms_key_id, bucket, key, region, found.bucket_key_enabled)


def _encrypting(request: Request, bucket: str, key: str) -> Iterator[Need]:
    held = _bucket(bucket)
    rule = ((held.encryption or {}).get("Rule") or {}) if held is not None else {}
    default = rule.get("ApplyServerSideEncryptionByDefault") or {}
    algorithm = request.headers.get("x-amz-server-side-encryption") or default.get("SSEAlgorithm")
    key_id = request.headers.get("x-amz-server-side-encryption-aws-kms-key-id") or default.get("KMSMasterKeyID")
    if algorithm != "aws:kms" or not key_id:
        return
    enabled = str(rule.get("BucketKeyEnabled", "")).lower() == "true"
    yield _key_need("kms:GenerateDataKey", key_id, bucket, key, request.region, enabled)
    if "uploadId" in request.query:  # S3 reads the parts to join them
        yield _key_need("kms:Decrypt", key_id, bucket, key, request.region, enabled)


def _key_need(action: str, key_id: str, bucket: str, key: str, region: str, bucket_key: object) -> Need:
    """Return the permission for S3 to use a key on the caller's behalf. With a bucket key, the encryption context is
    the bucket's ARN.
    """
    scope = f"arn:aws:s3:::{bucket}" if bucket_key else f"arn:aws:s3:::{bucket}/{key}"
    return key_need(
        action,
        key_id,
        region,
        {"kms:viaservice": (f"s3.{region}.amazonaws.com",), "kms:encryptioncontext:aws:s3:arn": (scope,)},
    )


def _unescape(key: bytes) -> str:
    from html import unescape

    return unescape(key.decode("utf-8", "replace"))


def _bucket(name: str) -> Any:
    from moto.s3.models import s3_backends

    return s3_backends[ACCOUNT][PARTITION].buckets.get(name)


def _object(bucket: str, key: str, version: str | None) -> Any:
    held = _bucket(bucket)
    if held is None:
        return None
    versions = held.keys.getlist(key, default=[])
    found = (
        next((item for item in versions if str(item.version_id) == version), None)
        if version
        else (versions[-1] if versions else None)
    )
    # A delete marker has no content.
    return found if hasattr(found, "encryption") else None


def _policy(bucket: str) -> Document | None:
    held = _bucket(bucket)
    return parse(held.policy, f"the bucket {bucket}") if held is not None and held.policy else None
