"""Objects in S3: conditional writes, bounded reads, complete listings, and typed errors.

Conditional writes (`If-None-Match`, `If-Match`) make immutability and compare-and-swap possible without a database; see
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients

ATTEMPTS = 5
"""Maximum number of attempts of a conditional write while another write of the key is in progress (409)."""

MOST_DELETED = 1000
"""Maximum number of objects that S3 deletes in one request."""

_MISSED = re.compile(r"not authorized to perform: ([\w-]+:\w+) on resource: \"?(arn:[^\s\"]+)")
"""The right that was missed and its resource, in a message of AWS."""


class NotFoundError(MlopsError):
    """The object does not exist."""


class NoBucketError(MlopsError):
    """The bucket does not exist."""


class AccessDeniedError(MlopsError):
    """The caller's role lacks a permission; the message names it."""


class PreconditionFailedError(MlopsError):
    """The object already exists, or has changed since it was read."""


class TooLargeError(MlopsError):
    """The object or listing exceeds the given limit."""


@dataclass(frozen=True)
class Stored:
    """Content of an object.

    Attributes:
        content: the bytes.
        etag: identifies this version, for `replace`.
        modified: when S3 stored it, in UTC; no writer can choose it.
    """

    content: bytes
    etag: str
    modified: datetime = field(compare=False)


@dataclass(frozen=True)
class Listed:
    """Object in a listing.

    Attributes:
        key: key of the object.
        size: size in bytes.
        etag: ETag, in double quotes as S3 writes it.
        modified: when it was written, in UTC.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Version:
    """Version of an object.

    Attributes:
        key: key of the object.
        deletes: True if this is a delete marker, which hides the versions before it.
        is_newest: True if it is the newest version of the object.
        modified: when S3 stored it, in UTC.
    """

    key: str
    deletes: bool
    is_newest: bool
    modified: datetime


def s3() -> Any:
    """Return the S3 client of the standard AWS configuration."""
    return clients.client("s3")


def split_url(url: str) -> tuple[str, str]:
    """Split `s3://<bucket>/<key>` into bucket and key.

    Raises:
        ValueError: the URL has another form.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"not an S3 URL: expected s3://<bucket>/<key>, found {url!r}")
    return bucket, key


def put(bucket: str, key: str, content: bytes, *, content_type: str, client: Any = None) -> None:
    """Write an object, or overwrite it.

    Raises:
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
    """
    with _errors_by_name("s3:PutObject", bucket, key):
        (client or s3()).put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type)


def upload(bucket: str, key: str, path: Path, *, client: Any = None) -> None:
    """Write or overwrite an object with the content of a local file of any size.

    Raises:
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
        OSError: the file cannot be read.
    """
    with _errors_by_name("s3:PutObject", bucket, key), path.open("rb") as file:
        (client or s3()).upload_fileobj(file, bucket, key)


def download(bucket: str, key: str, path: Path, *, client: Any = None) -> None:
    """Copy an object of any size to a local file.

    Raises:
        NotFoundError, AccessDeniedError, NoBucketError, MlopsError: the read failed.
        OSError: the file cannot be written.
    """
    with _errors_by_name("s3:GetObject", bucket, key):
        (client or s3()).download_file(bucket, key, str(path))


def put_new(bucket: str, key: str, content: bytes, *, client: Any = None) -> str:
    """Write an object that must not exist yet, and return its ETag.

    Raises:
        PreconditionFailedError: the object exists.
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
    """
    return _put(client or s3(), bucket, key, content, {"IfNoneMatch": "*"})


def upload_new(bucket: str, key: str, path: Path, *, client: Any = None) -> str:
    """Write an object that must not exist yet from a local file of up to 5 GiB, and return its ETag.

    Raises:
        PreconditionFailedError: the object exists.
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
        OSError: the file cannot be read.
    """
    return _put(client or s3(), bucket, key, path, {"IfNoneMatch": "*"})


def replace(bucket: str, key: str, content: bytes, etag: str, *, client: Any = None) -> str:
    """Overwrite an object that must still have the given ETag, and return its new ETag.

    Raises:
        PreconditionFailedError: the object has changed.
        AccessDeniedError, NoBucketError, MlopsError: the write failed.
    """
    return _put(client or s3(), bucket, key, content, {"IfMatch": etag})


def _put(client: Any, bucket: str, key: str, content: bytes | Path, condition: dict[str, str]) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            body = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
            with _errors_by_name("s3:PutObject", bucket, key), body:
                return str(client.put_object(Bucket=bucket, Key=key, Body=body, **condition)["ETag"])
        except _ConflictError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def get(bucket: str, key: str, *, limit: int, client: Any = None) -> Stored:
    """Read an object of at most `limit` bytes.

    Raises:
        NotFoundError: the object does not exist.
        TooLargeError: the object has more than `limit` bytes.
        NoBucketError, AccessDeniedError, MlopsError: the read failed.
    """
    with _errors_by_name("s3:GetObject", bucket, key):
        answer = (client or s3()).get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            size = int(answer["ContentLength"])
            content = body.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise TooLargeError(f"s3://{bucket}/{key} is too large: expected at most {limit} bytes, found {size}")
    return Stored(content, str(answer["ETag"]), answer["LastModified"])


def delete(bucket: str, key: str, *, client: Any = None) -> None:
    """Delete an object. Idempotent.

    Raises:
        AccessDeniedError, NoBucketError, MlopsError: the object cannot be deleted.
    """
    with _errors_by_name("s3:DeleteObject", bucket, key):
        (client or s3()).delete_object(Bucket=bucket, Key=key)


def delete_many(bucket: str, keys: Sequence[str], *, client: Any = None) -> None:
    """Delete objects. Idempotent.

    Raises:
        AccessDeniedError, NoBucketError, MlopsError: an object cannot be deleted; others may have been deleted.
    """
    for start in range(0, len(keys), MOST_DELETED):
        batch = [{"Key": key} for key in keys[start : start + MOST_DELETED]]
        with _errors_by_name("s3:DeleteObject", bucket, batch[0]["Key"]):
            answer = (client or s3()).delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            for refused in answer.get("Errors", ()):
                raise ClientError({"Error": {"Code": refused["Code"], "Message": refused["Message"]}}, "DeleteObjects")


def sizes(bucket: str, prefix: str, *, limit: int, client: Any = None) -> dict[str, int]:
    """Return the size in bytes of every object under a prefix, sorted by key.

    Raises:
        TooLargeError: there are more than `limit` objects.
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    found: dict[str, int] = {}
    for listed in listing(bucket, prefix, client=client):
        found[listed.key] = listed.size
        _check_count(len(found), bucket, prefix, limit)
    return dict(sorted(found.items()))


def listing(bucket: str, prefix: str, *, client: Any = None) -> Iterator[Listed]:
    """List every object under a prefix.

    Raises:
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    for page in _pages(client or s3(), bucket, prefix, ""):
        for entry in page.get("Contents", ()):
            yield Listed(str(entry["Key"]), int(entry["Size"]), str(entry["ETag"]), entry["LastModified"])


def first_after(bucket: str, prefix: str, after: str, *, most: int, client: Any = None) -> list[str]:
    """Return the first `most` (up to 1000) keys under a prefix that sort after the key `after`.

    Raises:
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    with _errors_by_name("s3:ListBucket", bucket, prefix):
        answer = (client or s3()).list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=most)
    return [str(entry["Key"]) for entry in answer.get("Contents", ())]


def versions(
    bucket: str, prefix: str, *, after: str = "", most: int | None = None, client: Any = None
) -> Iterator[Version]:
    """Iterate over all versions and delete markers under a prefix, in no particular order.

    Args:
        bucket: the bucket.
        prefix: key prefix.
        after: an existing key; only keys that sort after it are listed.
        most: number of versions after which the listing may end (up to 1000); None for all of them.
        client: the client to use.

    Raises:
        NoBucketError, AccessDeniedError, MlopsError: the listing failed.
    """
    marker = {"KeyMarker": after} if after else {}
    client = client or s3()
    with _errors_by_name("s3:ListBucketVersions", bucket, prefix):
        if most is None:
            paginator = client.get_paginator("list_object_versions")
            pages = paginator.paginate(Bucket=bucket, Prefix=prefix, **marker)
        else:
            pages = [client.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=most, **marker)]
        for page in pages:
            for name, deletes in (("Versions", False), ("DeleteMarkers", True)):
                for entry in page.get(name, ()):
                    yield Version(str(entry["Key"]), deletes, bool(entry["IsLatest"]), entry["LastModified"])


def folders(bucket: str, prefix: str, *, limit: int, client: Any = None) -> list[str]:
    """Return the names of the folders directly under a prefix, sorted.

    Raises:
        TooLargeError: there are more than `limit` folders.
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
        raise TooLargeError(f"s3://{bucket}/{prefix} has too many entries: expected at most {limit}")


class _ConflictError(MlopsError):
    """Another write of the same key is in progress."""


def _denied(error: ClientError, action: str, where: str) -> AccessDeniedError:
    """Return the error of a denied request; it names the right that S3 missed, such as that to a key."""
    named = _MISSED.search(str(error.response.get("Error", {}).get("Message", "")))
    if named is None or named[1] == action:
        return AccessDeniedError(
            f"{action} on {where} was denied", fix=f"grant the caller's role {action} on this prefix"
        )
    missed = f"{named[1]} on {named[2]}"
    return AccessDeniedError(
        f"{action} on {where} was denied: it needs {missed}", fix=f"grant the caller's role {missed}"
    )


@contextmanager
def _errors_by_name(action: str, bucket: str, key: str) -> Iterator[None]:
    where = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("PreconditionFailed", "412") or status == 412:
            raise PreconditionFailedError(f"{where} already exists or has changed") from None
        if code in ("ConditionalRequestConflict", "OperationAborted") or status == 409:
            raise _ConflictError(f"another write of {where} is in progress", fix="try again") from None
        if code in ("NoSuchKey", "404") or (status == 404 and code != "NoSuchBucket"):
            raise NotFoundError(f"{where} does not exist") from None
        if code == "NoSuchBucket":
            fix = "bring the environment up, and check that the credentials belong to its account"
            raise NoBucketError(f"the bucket {bucket} does not exist", fix=fix) from None
        clients.refuse_wrong_clock(error, f"{action} on {where}")
        if code in ("AccessDenied", "403", "Forbidden") or status == 403:
            raise _denied(error, action, where) from None
        fix = clients.AFTER_AN_OUTAGE if clients.is_outage(error) else ""
        raise MlopsError(f"{action} on {where} failed: {error}", fix=fix) from None
    except BotoCoreError as error:
        raise MlopsError(
            f"{action} on {where} failed: {error}", fix="check the AWS credentials, region and endpoint"
        ) from None
