"""Records of versions that have expired, so that lineage still knows the landing files of the versions after them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from pipelines.data.glue_client import s3
from pipelines.data.versions import TableVersion, read_version_of
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry import store

LARGEST_RECORD = 4 << 20
"""Size limit of the records of one expiry, in bytes."""


class ExpiredVersion(Declaration):
    """A version that has expired; see `TableVersion`."""

    snapshot: str
    parent: str | None
    at: Timestamp
    rows: int | None
    file: str | None
    batch: str | None
    contract: str | None
    is_included: bool
    added: int | None = None
    bundle: str | None = None
    read: str | None = None

    @property
    def read_version(self) -> tuple[str, str] | None:
        """See `TableVersion.read_version`."""
        return read_version_of(self.read, self.file)


def record_expiry(descriptor: EnvironmentDescriptor, dataset: str, versions: Sequence[TableVersion]) -> None:
    """Record versions that are about to expire. Recording them again changes nothing."""
    lines = [
        ExpiredVersion(**{name: getattr(version, name) for name in ExpiredVersion.model_fields}).model_dump_json()
        for version in versions
    ]
    key = f"{_prefix(dataset)}{versions[0].snapshot}.jsonl"
    content = ("\n".join(lines) + "\n").encode()
    store.put(descriptor.lake_bucket, key, content, content_type="application/jsonl", client=s3(descriptor))


def read_expired(descriptor: EnvironmentDescriptor, dataset: str) -> list[ExpiredVersion]:
    """Read the records of all expired versions of a dataset, the oldest first; malformed lines are left out.

    Raises:
        AccessDeniedError: the caller may not list or read them.
    """
    found: dict[str, ExpiredVersion] = {}
    for listed in store.listing(descriptor.lake_bucket, _prefix(dataset), client=s3(descriptor)):
        content = store.get(descriptor.lake_bucket, listed.key, limit=LARGEST_RECORD, client=s3(descriptor)).content
        for line in content.splitlines():
            try:
                version = ExpiredVersion.model_validate_json(line)
            except ValidationError:
                continue
            found[version.snapshot] = version
    return sorted(found.values(), key=lambda version: version.at)


def _prefix(dataset: str) -> str:
    return f"quarantine/{dataset}/expired/"
