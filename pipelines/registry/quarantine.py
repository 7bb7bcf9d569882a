"""The bundles that were found bad in an environment: nothing promotes them again."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import store
from pipelines.registry.bundles import checked_name, hex_of
from pipelines.registry.ledger import LONGEST_REASON, Words

LARGEST = 4096
"""Bytes. What is written is bounded to fit: an entry that nobody can read would block the model for good."""

MOST = 10_000


class Quarantined(Declaration):
    """Why a bundle is quarantined.

    Attributes:
        bundle: its digest.
        reason: in words; see `ledger.words`.
        at: since when.
    """

    bundle: Digest
    reason: Annotated[Words, Field(max_length=LONGEST_REASON)]
    at: AwareDatetime


def quarantine(descriptor: EnvironmentDescriptor, model: str, entry: Quarantined) -> None:
    """Quarantine a bundle; the first reason stays.

    Raises:
        MlopsError: the registry cannot be written.
    """
    key = f"quarantine/{checked_name(model)}/{hex_of(entry.bundle)}.json"
    try:
        store.put_new(descriptor.registry_bucket, key, canonical_json(entry.model_dump(mode="json")))
    except store.PreconditionFailedError:
        return


def quarantined(descriptor: EnvironmentDescriptor, model: str) -> dict[str, str]:
    """The quarantined bundles of a model, and why.

    Raises:
        MlopsError: the registry cannot be read, or an entry cannot be understood; no bundle may then be
            taken for free.
    """
    client, bucket, prefix = store.s3(), descriptor.registry_bucket, f"quarantine/{checked_name(model)}/"
    found = {}
    for key in store.sizes(bucket, prefix, limit=MOST, client=client):
        content = store.get(bucket, key, limit=LARGEST, client=client).content
        try:
            entry = Quarantined.model_validate_json(content)
        except ValueError:
            raise MlopsError(f"s3://{bucket}/{key} cannot be understood", fix="find out who wrote it") from None
        if key != f"{prefix}{hex_of(entry.bundle)}.json":
            raise MlopsError(f"s3://{bucket}/{key} speaks of {entry.bundle}", fix="find out who wrote it")
        found[entry.bundle] = entry.reason
    return found
