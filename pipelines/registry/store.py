"""S3 as a store of immutable objects: conditional writes, bounded reads, whole listings.

The conditions (`If-None-Match`, `If-Match`) are what makes a write atomic without a database; see
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients

ATTEMPTS = 5
"""How often a write is tried while S3 answers that another write of the same key is under way (409)."""


class NotFoundError(MlopsError):
    """The object is not there."""


class NoBucketError(MlopsError):
    """The bucket is not there."""


class AccessDeniedError(MlopsError):
    """The role may not do this; the message says what it lacks."""


class PreconditionFailedError(MlopsError):
    """The object exists already, or is no longer what it was."""


class TooLargeError(MlopsError):
    """The object is larger than the reader accepts."""


@dataclass(frozen=True)
class Stored:
    """An object as it was read.

    Attributes:
        content: its bytes.
        etag: names this version of it, for `replace`.
    """

    content: bytes
    etag: str


def s3() -> Any:
    """A client of S3, configured by the standard SDK environment."""
    return clients.client("s3")


def put_new(bucket: str, key: str, content: bytes, *, client: Any = None) -> str:
    """Write an object that must not exist yet; its ETag.

    Raises:
        PreconditionFailedError: it exists.
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
    """
    return _put(client or s3(), bucket, key, content, {"IfNoneMatch": "*"})


def replace(bucket: str, key: str, content: bytes, etag: str, *, client: Any = None) -> str:
    """Write an object that must still be the version `etag`; its new ETag.

    Raises:
        PreconditionFailedError: someone else wrote it since.
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
    """
    return _put(client or s3(), bucket, key, content, {"IfMatch": etag})


def _put(client: Any, bucket: str, key: str, content: bytes, condition: dict[str, str]) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _errors_by_name("s3:PutObject", bucket, key):
                return str(client.put_object(Bucket=bucket, Key=key, Body=content, **condition)["ETag"])
        except _ConflictError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def get(bucket: str, key: str, *, limit: int, client: Any = None) -> Stored:
    """Read an object of at most `limit` bytes.

    Raises:
        NotFoundError: it is not there.
        TooLargeError: it has more bytes; no more than `limit` of them were read.
        NoBucketError, AccessDeniedError, MlopsError: the read failed.
    """
    with _errors_by_name("s3:GetObject", bucket, key):
        answer = (client or s3()).get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            size = int(answer["ContentLength"])
            content = body.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise TooLargeError(f"s3://{bucket}/{key} has {size} bytes; expected at most {limit}")
    return Stored(content, str(answer["ETag"]))


def sizes(bucket: str, prefix: str, *, limit: int, client: Any = None) -> dict[str, int]:
    """Every key under a prefix, in order, and the size of its object in bytes.

    Raises:
        TooLargeError: there are more than `limit`.
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    found: dict[str, int] = {}
    for page in _pages(client or s3(), bucket, prefix, ""):
        found |= {entry["Key"]: int(entry["Size"]) for entry in page.get("Contents", ())}
        _check_count(len(found), bucket, prefix, limit)
    return dict(sorted(found.items()))


def first_after(bucket: str, prefix: str, after: str, *, most: int, client: Any = None) -> list[str]:
    """The first `most` (up to 1000) keys under a prefix that come after the key `after`, in order.

    Raises:
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    with _errors_by_name("s3:ListBucket", bucket, prefix):
        answer = (client or s3()).list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=most)
    return [str(entry["Key"]) for entry in answer.get("Contents", ())]


def folders(bucket: str, prefix: str, *, limit: int, client: Any = None) -> list[str]:
    """The names directly under a prefix that have something under them, in order.

    Raises:
        TooLargeError: there are more than `limit`.
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    found: list[str] = []
    for page in _pages(client or s3(), bucket, prefix, "/"):
        found += [entry["Prefix"].removeprefix(prefix).removesuffix("/") for entry in page.get("CommonPrefixes", ())]
        _check_count(len(found), bucket, prefix, limit)
    return sorted(found)


def _pages(client: Any, bucket: str, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
    with _errors_by_name("s3:ListBucket", bucket, prefix):
        paginator = client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=bucket, Prefix=prefix, Delimiter=delimiter)


def _check_count(found: int, bucket: str, prefix: str, limit: int) -> None:
    if found > limit:
        raise TooLargeError(f"s3://{bucket}/{prefix} holds more than {limit} entries")


class _ConflictError(MlopsError):
    """Another write of the same key is under way."""


@contextmanager
def _errors_by_name(action: str, bucket: str, key: str) -> Iterator[None]:
    where = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("PreconditionFailed", "412") or status == 412:
            raise PreconditionFailedError(f"{where} is not in the state that this write requires") from None
        if code in ("ConditionalRequestConflict", "OperationAborted") or status == 409:
            raise _ConflictError(f"another write of {where} is under way", fix="try again") from None
        if code in ("NoSuchKey", "404") or (status == 404 and code != "NoSuchBucket"):
            raise NotFoundError(f"{where} does not exist") from None
        if code == "NoSuchBucket":
            fix = "bring the environment up, and check that these credentials are of its account"
            raise NoBucketError(f"the bucket {bucket} does not exist", fix=fix) from None
        if code in ("AccessDenied", "403", "Forbidden") or status == 403:
            raise AccessDeniedError(
                f"{action} on {where} was denied", fix=f"grant the caller's role {action} on this prefix"
            ) from None
        raise MlopsError(f"{action} on {where} failed: {error}") from None
    except BotoCoreError as error:
        raise MlopsError(
            f"{action} on {where} failed: {error}", fix="check the AWS credentials, region and endpoint"
        ) from None
