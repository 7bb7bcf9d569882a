"""Permissions of S3 requests, including those on the KMS key of an encrypted bucket.

Source: Amazon S3 user guide, "Required permissions for Amazon S3 API operations"; service authorization reference
(condition keys of each action); API reference of the operations that need several permissions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from laptop.aws.access.kms_permissions import key_need
from laptop.aws.access.policy import Document, Need, parse
from laptop.aws.access.principals import ACCOUNT, PARTITION
from laptop.aws.access.request import Request, RequestRefusedError
from laptop.aws.access.s3_documents import document_of, malformed, name_of, texts_in
from laptop.aws.access.s3_operations import S3Operation, operation_of

_VERSIONED = {
    "DeleteObject",
    "DeleteObjectTagging",
    "GetObject",
    "GetObjectAcl",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
}
"""Actions that have one for versions (`s3:GetObjectVersion`)."""

CREATES = {"PutObject", "CopyObject", "CompleteMultipartUpload"}
"""Operations that create an object, and so may be conditional on its absence."""

_GRANTS = ("full-control", "read", "read-acp", "write", "write-acp")
_HEADER_KEYS = (
    "x-amz-acl",
    "x-amz-copy-source",
    "x-amz-metadata-directive",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
    *(f"x-amz-grant-{grant}" for grant in _GRANTS),
)
_LOCK_KEYS = {
    "s3:object-lock-mode": "x-amz-object-lock-mode",
    "s3:object-lock-retain-until-date": "x-amz-object-lock-retain-until-date",
    "s3:object-lock-legal-hold": "x-amz-object-lock-legal-hold",
}
_SOURCE = re.compile(r"/?(?P<bucket>[a-z0-9.-]+)/(?P<key>[^?#;]+)(?:\?versionId=(?P<version>[A-Za-z0-9._-]+))?")


def needs(request: Request) -> Iterator[Need]:
    """Yield the permissions of an S3 request with a path-style URL.

    Raises:
        RequestRefusedError: the account does not execute the request.
    """
    operation = operation_of(request)
    bucket, _, key = request.path.lstrip("/").partition("/")
    if not bucket:
        yield Need(operation.action, "*")
    elif not key:
        yield from _of_bucket(request, operation, bucket)
    else:
        yield from _of_object(request, operation, bucket, key)


def _of_bucket(request: Request, operation: S3Operation, bucket: str) -> Iterator[Need]:
    query, headers = request.query, request.headers
    arn, policy = f"arn:aws:s3:::{bucket}", _policy(bucket)
    context = _common(request)
    if operation.action in ("s3:ListBucket", "s3:ListBucketVersions"):
        context |= {f"s3:{name}": (query[name],) for name in ("prefix", "delimiter", "max-keys") if name in query}
    context |= _from_headers(headers, *(name for name in _HEADER_KEYS if "acl" in name or "grant" in name))
    if operation.name == "CreateBucket":
        context["s3:locationconstraint"] = (request.region,)

    def need(action: str) -> Need:
        return Need(f"s3:{action}", arn, context, policy)

    yield Need(operation.action, arn, context, policy)
    if operation.name == "CreateBucket":
        if _sets_acl(headers):
            yield need("PutBucketAcl")
        if headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
            yield need("PutBucketObjectLockConfiguration")
            yield need("PutBucketVersioning")
        if "x-amz-object-ownership" in headers:
            yield need("PutBucketOwnershipControls")
        if b"<Tag" in request.body:
            yield need("TagResource")


def deletion_needs(request: Request, bucket: str, key: str, version: str | None) -> Iterator[Need]:
    """Yield the permissions to delete an object, or one version of it."""
    arn, policy, context = f"arn:aws:s3:::{bucket}/{key}", _policy(bucket), _common(request)
    if version:
        context["s3:versionid"] = (version,)
    yield Need(f"s3:DeleteObject{'Version' if version else ''}", arn, context, policy)
    if _bypasses(request):
        yield Need("s3:BypassGovernanceRetention", arn, context, policy)


def _of_object(request: Request, operation: S3Operation, bucket: str, key: str) -> Iterator[Need]:
    query, headers = request.query, request.headers
    version = query.get("versionId")
    target = _Target(request, bucket, key, version)

    def need(action: str) -> Need:
        return target.need(operation, action)

    name = operation.action.removeprefix("s3:")
    yield need(_for_version(name) if version and name in _VERSIONED else name)
    if operation.name == "GetObjectAttributes":
        yield need("GetObjectVersion" if version else "GetObject")
    if operation.name in ("GetObject", "HeadObject", "GetObjectAttributes", "SelectObjectContent"):
        found = find_object(bucket, key, version)
        if found is None:  # S3 reports a missing object only to callers that may list the bucket
            listed = {**_common(request), "s3:prefix": (key,)}
            yield Need("s3:ListBucket", f"arn:aws:s3:::{bucket}", listed, _policy(bucket))
        else:
            yield from _decrypting(found, bucket, key, request.region)
    if operation.action == "s3:PutObject":
        yield from _of_write(request, operation, need)
        yield from _encrypting(request, bucket, key)
    elif operation.action == "s3:DeleteObject" and "if-match" in headers:
        yield need("GetObject")
    if _bypasses(request):
        yield need("BypassGovernanceRetention")


def _of_write(request: Request, operation: S3Operation, need: Any) -> Iterator[Need]:
    """Yield the further permissions of a request that writes an object."""
    headers = request.headers
    if "if-match" in headers:
        yield need("GetObject")
    if headers.get("x-amz-tagging"):
        yield need("PutObjectTagging")
    if _sets_acl(headers):
        yield need("PutObjectAcl")
    if {"x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"} & headers.keys():
        yield need("PutObjectRetention")
    if "x-amz-object-lock-legal-hold" in headers:
        yield need("PutObjectLegalHold")
    if "x-amz-copy-source" in headers:
        source = _source(headers["x-amz-copy-source"])
        yield from _copied_from(request, source)
        found = find_object(*source)
        if operation.name == "CopyObject" and found is not None and _tags(found):  # moto always copies the tags
            yield _Target(request, *source).need(None, "GetObjectVersionTagging" if source[2] else "GetObjectTagging")
            yield need("PutObjectTagging")


@dataclass(frozen=True)
class _Target:
    """An object that a request is about."""

    request: Request
    bucket: str
    key: str
    version: str | None

    def need(self, operation: S3Operation | None, action: str) -> Need:
        """Return the need of an action, with its condition keys.

        Args:
            operation: the operation that writes the object; None to read it.
        """
        headers = self.request.headers
        context = _common(self.request)
        if self.version:
            context["s3:versionid"] = (self.version,)
        if operation is not None and action == "PutObject":
            context |= _from_headers(headers, *_HEADER_KEYS)
            context |= {key: (headers[header],) for key, header in _LOCK_KEYS.items() if header in headers}
            context["s3:objectcreationoperation"] = (str(operation.name in CREATES).lower(),)
            if operation.name in CREATES:
                context |= {f"s3:{name}": (headers[name],) for name in ("if-none-match", "if-match") if name in headers}
        if operation is not None and action == "PutObjectAcl":
            context |= _from_headers(headers, *(name for name in _HEADER_KEYS if "acl" in name or "grant" in name))
        if action in ("PutObject", "PutObjectTagging", "PutObjectVersionTagging"):
            given = dict(parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True))
            if operation is not None and operation.name == "PutObjectTagging":
                given = _tags_in(self.request)
            if given:
                context |= {f"s3:requestobjecttag/{key}".lower(): (value,) for key, value in given.items()}
                context["s3:requestobjecttagkeys"] = tuple(given)
        if action.startswith(("GetObject", "DeleteObjectTagging", "DeleteObjectVersionTagging")) or action in (
            "PutObjectAcl",
            "PutObjectTagging",
            "PutObjectVersionTagging",
        ):
            held = _tags(find_object(self.bucket, self.key, self.version))
            context |= {f"s3:existingobjecttag/{key}".lower(): (value,) for key, value in held.items()}
        return Need(f"s3:{action}", f"arn:aws:s3:::{self.bucket}/{self.key}", context, _policy(self.bucket))


def _for_version(action: str) -> str:
    return action.replace("Object", "ObjectVersion", 1)


def _common(request: Request) -> dict[str, tuple[str, ...]]:
    """Return the condition keys of every S3 request."""
    return {
        "s3:authtype": ("REST-HEADER",),
        "s3:signatureversion": ("AWS4-HMAC-SHA256",),
        "s3:x-amz-content-sha256": (request.headers.get("x-amz-content-sha256", ""),),
        "s3:resourceaccount": (ACCOUNT,),
        "aws:resourceaccount": (ACCOUNT,),
    }


def _from_headers(headers: Mapping[str, str], *names: str) -> dict[str, tuple[str, ...]]:
    return {f"s3:{name}": (headers[name],) for name in names if name in headers}


def _sets_acl(headers: Mapping[str, str]) -> bool:
    return "x-amz-acl" in headers or any(f"x-amz-grant-{grant}" in headers for grant in _GRANTS)


def _bypasses(request: Request) -> bool:
    """Return True if the request lifts governance retention. For moto, every value of the header does."""
    return bool(request.headers.get("x-amz-bypass-governance-retention"))


def _source(header: str) -> tuple[str, str, str | None]:
    """Return bucket, key and version of the object to copy.

    Raises:
        RequestRefusedError: the header can be read in more than one way. SDKs quote every special character.
    """
    found = _SOURCE.fullmatch(header)
    if found is None:
        raise RequestRefusedError(400, "InvalidArgument", "x-amz-copy-source: expected <bucket>/<quoted key>.")
    return found["bucket"], unquote(found["key"]), found["version"]


def _copied_from(request: Request, source: tuple[str, str, str | None]) -> Iterator[Need]:
    bucket, key, version = source
    yield _Target(request, *source).need(None, "GetObjectVersion" if version else "GetObject")
    found = find_object(bucket, key, version)
    if found is not None:
        yield from _decrypting(found, bucket, key, request.region)


def _decrypting(found: Any, bucket: str, key: str, region: str) -> Iterator[Need]:
    if str(found.encryption).startswith("aws:kms") and found.kms_key_id:
        yield _key_need("kms:Decrypt", found.kms_key_id, bucket, key, region, found.bucket_key_enabled)


def _encrypting(request: Request, bucket: str, key: str) -> Iterator[Need]:
    held = _bucket(bucket)
    rule = ((held.encryption or {}).get("Rule") or {}) if held is not None else {}
    default = rule.get("ApplyServerSideEncryptionByDefault") or {}
    algorithm = request.headers.get("x-amz-server-side-encryption") or default.get("SSEAlgorithm") or ""
    key_id = request.headers.get("x-amz-server-side-encryption-aws-kms-key-id") or default.get("KMSMasterKeyID")
    if not algorithm.startswith("aws:kms") or not key_id:
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
        {
            "aws:viaawsservice": ("true",),
            "kms:viaservice": (f"s3.{region}.amazonaws.com",),
            "kms:encryptioncontext:aws:s3:arn": (scope,),
            "kms:encryptioncontextkeys": ("aws:s3:arn",),
        },
    )


def _bucket(name: str) -> Any:
    from moto.s3.models import s3_backends

    return s3_backends[ACCOUNT][PARTITION].buckets.get(name)


def find_object(bucket: str, key: str, version: str | None = None) -> Any:
    """Return moto's object, or None if it does not exist or the version is a delete marker."""
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


def _tags(found: Any) -> dict[str, str]:
    from moto.s3.models import s3_backends

    if found is None:
        return {}
    tags: dict[str, str] = s3_backends[ACCOUNT][PARTITION].tagger.get_tag_dict_for_resource(found.arn)
    return tags


def _tags_in(request: Request) -> dict[str, str]:
    """Return the tags in the content of PutObjectTagging.

    Raises:
        RequestRefusedError: the content is not what S3 expects.
    """
    found: dict[str, str] = {}
    for listed in document_of(request, "Tagging"):
        for tag in listed:
            given = texts_in(tag)
            if (name_of(listed), name_of(tag)) != ("TagSet", "Tag") or given.keys() != {"Key", "Value"}:
                raise malformed()
            found[given["Key"]] = given["Value"]
    return found


def _policy(bucket: str) -> Document | None:
    held = _bucket(bucket)
    return parse(held.policy, f"the bucket {bucket}") if held is not None and held.policy else None
