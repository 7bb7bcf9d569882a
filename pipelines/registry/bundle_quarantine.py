"""Quarantined bundles: bundles that an environment must never promote again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import checked_name
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry import store
from pipelines.registry.bundles import hex_of
from pipelines.registry.ledger import LONGEST_REASON, Words

LARGEST = 4096
"""Size limit of an entry, in bytes. Writes respect it: an unreadable entry would block the model's promotions."""

MOST = 10_000


class Quarantined(Declaration):
    """Quarantine entry of a bundle.

    Attributes:
        bundle: digest of the bundle.
        reason: why it is quarantined, on one line; see `ledger.words`.
        at: time of the quarantine.
    """

    bundle: Digest
    reason: Annotated[Words, Field(max_length=LONGEST_REASON)]
    at: Timestamp


def quarantine(descriptor: EnvironmentDescriptor, model: str, entry: Quarantined) -> None:
    """Quarantine a bundle. If it already is, the first reason is kept.

    Raises:
        MlopsError: the registry cannot be written.
    """
    key = f"quarantine/{checked_name(model)}/{hex_of(entry.bundle)}.json"
    try:
        store.put_new(descriptor.registry_bucket, key, canonical_json(entry.model_dump(mode="json")))
    except store.PreconditionFailedError:
        return


def quarantined(descriptor: EnvironmentDescriptor, model: str) -> dict[str, str]:
    """Return the quarantined bundles of a model: digest → reason; see `read_quarantine`."""
    return {digest: entry.reason for digest, entry in read_quarantine(descriptor, model).items()}


def read_quarantine(descriptor: EnvironmentDescriptor, model: str) -> dict[str, Quarantined]:
    """Return the quarantine entries of a model: digest → entry.

    Raises:
        MlopsError: the registry cannot be read, or an entry is malformed. No bundle may then be assumed good.
    """
    client, bucket, prefix = store.s3(), descriptor.registry_bucket, f"quarantine/{checked_name(model)}/"
    found: dict[str, Quarantined] = {}
    for key in store.sizes(bucket, prefix, limit=MOST, client=client):
        content = store.get(bucket, key, limit=LARGEST, client=client).content
        try:
            entry = Quarantined.model_validate_json(content)
        except ValueError:
            raise MlopsError(f"s3://{bucket}/{key} is not a quarantine entry", fix="find out who wrote it") from None
        if key != f"{prefix}{hex_of(entry.bundle)}.json":
            raise MlopsError(
                f"s3://{bucket}/{key} is about another bundle: found {entry.bundle}", fix="find out who wrote it"
            )
        found[entry.bundle] = entry
    return found


def quarantined_anywhere(descriptors: Mapping[str, EnvironmentDescriptor], model: str) -> dict[str, str]:
    """Return the bundles of a model that are quarantined in any environment: digest → reason, with the environment.

    Raises:
        MlopsError: a registry cannot be read, or an entry is malformed. No bundle may then be assumed good.
    """
    found: dict[str, str] = {}
    for name, descriptor in descriptors.items():
        found |= {digest: f"{why} (in {name})" for digest, why in quarantined(descriptor, model).items()}
    return found
