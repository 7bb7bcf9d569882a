"""In-memory AWS account: the parts of S3, KMS and Glue that the promotion tests need.

`tools.mutation` runs those tests hundreds of times, for which moto is too slow.
"""

from __future__ import annotations

import base64
import hashlib
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.registry import clients
from tests.aws import ACCOUNT, REGION, EmulatedAccount


def client_error(code: str, status: int) -> ClientError:
    """Return an error as boto3 raises it."""
    answer: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "in memory")


class Body(io.BytesIO):
    """Stream of an object."""


class Paginator:
    """Paginator whose only page is the answer of one call."""

    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def paginate(self, **options: Any) -> list[dict[str, Any]]:
        return [self._call(**options)]


class MemoryS3:
    """In-memory S3.

    Args:
        denied: names of buckets for which every call is denied.
    """

    def __init__(self, denied: set[str]) -> None:
        self._denied = denied
        self._buckets: dict[str, dict[str, bytes]] = {}

    def list_object_versions(
        self,
        Bucket: str,  # noqa: N803
        Prefix: str = "",  # noqa: N803
        KeyMarker: str = "",  # noqa: N803
        MaxKeys: int = 10**9,  # noqa: N803
    ) -> dict[str, Any]:
        """List the objects; this S3 keeps no older versions."""
        listed = self.list_objects_v2(Bucket, Prefix, StartAfter=KeyMarker, MaxKeys=MaxKeys)
        return {"Versions": listed["Contents"]}

    def _objects(self, bucket: str) -> dict[str, bytes]:
        if bucket in self._denied:
            raise client_error("AccessDenied", 403)
        if bucket not in self._buckets:
            raise client_error("NoSuchBucket", 404)
        return self._buckets[bucket]

    def create_bucket(self, Bucket: str, **_: Any) -> None:  # noqa: N803 - as boto3 names it
        self._buckets[Bucket] = {}

    def put_object(self, Bucket: str, Key: str, Body: bytes, **conditions: str) -> dict[str, Any]:  # noqa: N803
        objects = self._objects(Bucket)
        found = objects.get(Key)
        exists = found is not None and "IfNoneMatch" in conditions
        changed = "IfMatch" in conditions and (found is None or etag(found) != conditions["IfMatch"])
        if exists or changed:
            raise client_error("PreconditionFailed", 412)
        objects[Key] = bytes(Body)
        return {"ETag": etag(objects[Key])}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        content = self._objects(Bucket).get(Key)
        if content is None:
            raise client_error("NoSuchKey", 404)
        return {"Body": Body(content), "ContentLength": len(content), "ETag": etag(content)}

    def delete_object(self, Bucket: str, Key: str) -> None:  # noqa: N803
        self._objects(Bucket).pop(Key, None)

    def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> None:  # noqa: N803
        for item in Delete["Objects"]:
            self.delete_object(Bucket, item["Key"])

    def list_objects_v2(
        self,
        Bucket: str,  # noqa: N803
        Prefix: str = "",  # noqa: N803
        Delimiter: str = "",  # noqa: N803
        StartAfter: str = "",  # noqa: N803
        MaxKeys: int = 10**9,  # noqa: N803
    ) -> dict[str, Any]:
        objects = self._objects(Bucket)
        keys = sorted(key for key in list(objects) if key.startswith(Prefix) and key > StartAfter)[:MaxKeys]
        if not Delimiter:
            return {"Contents": [{"Key": key, "Size": len(objects[key])} for key in keys]}
        deeper = {Prefix + key[len(Prefix) :].partition(Delimiter)[0] + Delimiter for key in keys}
        return {"CommonPrefixes": [{"Prefix": prefix} for prefix in sorted(deeper)]}

    def get_paginator(self, operation: str) -> Paginator:
        return Paginator(getattr(self, operation))


class MemoryKms:
    """In-memory KMS with signing keys."""

    def __init__(self) -> None:
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def create_key(self, **_: Any) -> dict[str, Any]:
        arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{uuid.uuid4()}"
        self._keys[arn] = ec.generate_private_key(ec.SECP256R1())
        return {"KeyMetadata": {"Arn": arn}}

    def get_public_key(self, KeyId: str) -> dict[str, Any]:  # noqa: N803
        public = self._keys[KeyId].public_key()
        return {"PublicKey": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}

    def sign(self, KeyId: str, Message: bytes, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Signature": self._keys[KeyId].sign(Message, ec.ECDSA(SHA256()))}


def etag(content: bytes) -> str:
    """Return the ETag of an object's content."""
    return base64.b16encode(hashlib.sha256(content).digest()[:8]).decode()


@contextmanager
def account_in_memory() -> Iterator[EmulatedAccount]:
    """Replace `tests.aws.emulated_account` in this process."""
    account = EmulatedAccount("memory:")
    services = {"s3": MemoryS3(account.denied), "kms": MemoryKms(), "glue": mock.Mock()}

    def client(service: str, *_: Any, **__: Any) -> Any:
        return services[service]

    with mock.patch.object(boto3, "client", client), mock.patch.object(clients, "client", client):
        yield account
