"""The bundles that were found bad in an environment: nothing promotes them again."""

from __future__ import annotations

from pydantic import AwareDatetime

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import store
from pipelines.registry.bundles import checked_name, hex_of

LARGEST = 4096
MOST = 10_000


class Quarantined(Declaration):
    """Why a bundle is quarantined.

    Attributes:
        bundle: its digest.
        reason: in words.
        at: since when.
    """

    bundle: Digest
    reason: str
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
    bucket, prefix = descriptor.registry_bucket, f"quarantine/{checked_name(model)}/"
    found = {}
    for key in store.sizes(bucket, prefix, limit=MOST):
        content = store.get(bucket, key, limit=LARGEST).content
        try:
            entry = Quarantined.model_validate_json(content)
        except ValueError:
            raise MlopsError(f"s3://{bucket}/{key} cannot be understood", fix="find out who wrote it") from None
        found[entry.bundle] = entry.reason
    return found
