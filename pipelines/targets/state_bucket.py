"""The state bucket of Pulumi's self-managed backend: its locks, and the record of who holds a stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3

from pipelines.declarations.documents import first_problem
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients, store
from pipelines.targets.stack_lock import HolderRecord, PulumiLock

LARGEST = 1 << 16
"""Size limit of a lock and of a record, in bytes."""


@dataclass(frozen=True)
class StackLocks:
    """The locks of one stack in the state bucket.

    The layout of Pulumi's part is that of pulumi/pulumi, pkg/backend/diy.

    Attributes:
        bucket: name of the bucket.
        folder: prefix of Pulumi's state in the bucket; empty, or ends in `/`.
        project: name of the Pulumi project.
        stack: name of the stack.
        client: S3 client.
    """

    bucket: str
    folder: str
    project: str
    stack: str
    client: Any

    @classmethod
    def of_backend(cls, url: str, project: str, stack: str) -> StackLocks | None:
        """Return the locks of a stack; None if the backend is not S3.

        Args:
            url: URL of the backend, such as `s3://bucket?region=eu-west-1`.
            project: name of the Pulumi project.
            stack: name of the stack.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            return None
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        folder = parts.path.strip("/")
        if "profile" in query:
            client = boto3.Session(profile_name=query["profile"], region_name=query.get("region")).client("s3")
        else:
            client = clients.client("s3", query.get("region"))
        return cls(parts.netloc, f"{folder}/" if folder else "", project, stack, client)

    @property
    def record_key(self) -> str:
        """Key of the record of the stack's holder. Pulumi lists its own folder, so the record is outside of it."""
        return f"{self.folder}.mlops/holders/{self.project}/{self.stack}.json"

    def read_record(self) -> tuple[HolderRecord, str]:
        """Return the record of the holder, and its ETag; an empty record and "" if there is none.

        Raises:
            MlopsError: the bucket cannot be read, or the object is not a record.
        """
        try:
            stored = store.get(self.bucket, self.record_key, limit=LARGEST, client=self.client)
        except store.NotFoundError:
            return HolderRecord(), ""
        try:
            return HolderRecord.model_validate_json(stored.content), stored.etag
        except ValueError as error:
            raise MlopsError(
                f"s3://{self.bucket}/{self.record_key} is not the record of a holder: {first_problem(error)}",
                fix="inspect it, and delete it if nobody works on the stack",
            ) from None

    def write_record(self, record: HolderRecord, etag: str) -> str:
        """Replace the record of the holder, and return its new ETag.

        Args:
            record: the new record.
            etag: ETag of the record to replace; "" if there must be none.

        Raises:
            PreconditionFailedError: another process replaced the record first.
            MlopsError: the bucket cannot be written.
        """
        content = record.model_dump_json().encode()
        if not etag:
            return store.put_new(self.bucket, self.record_key, content, client=self.client)
        return store.replace(self.bucket, self.record_key, content, etag, client=self.client)

    def pulumi_locks(self) -> Iterator[PulumiLock]:
        """Yield the locks that Pulumi processes hold.

        Raises:
            MlopsError: the bucket cannot be read.
        """
        prefix = f"{self.folder}.pulumi/locks/organization/{self.project}/{self.stack}/"
        for listed in store.listing(self.bucket, prefix, client=self.client):
            try:
                content = store.get(self.bucket, listed.key, limit=LARGEST, client=self.client).content
            except store.NotFoundError:  # released since it was listed
                continue
            yield self._parse(listed.key, content)

    def remove(self, key: str) -> None:
        """Delete a lock of Pulumi. Idempotent.

        Raises:
            MlopsError: the bucket cannot be written.
        """
        store.delete(self.bucket, key, client=self.client)

    def _parse(self, key: str, content: bytes) -> PulumiLock:
        try:
            found = json.loads(content)
            return PulumiLock(
                key, str(found["username"]), str(found["hostname"]), int(found["pid"]), _time(found["timestamp"])
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            raise MlopsError(
                f"s3://{self.bucket}/{key} is not a lock of Pulumi: expected JSON with pid, username, hostname and "
                f"timestamp, found {content[:80]!r}",
                fix="inspect it, and delete it if nobody works on the stack",
            ) from None


def _time(text: str) -> datetime:
    """Parse a timestamp of Go, which has up to nine digits of a second.

    Raises:
        ValueError: the text is not a timestamp with a time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment
