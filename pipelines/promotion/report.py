"""The full report of a judgement, stored beside the ledger under its digest, so that a record can name it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict
from pipelines.registry import store
from pipelines.registry.bundles import checked_name, hex_of

LARGEST = 64 << 20
"""Bytes."""


def keep_report(descriptor: EnvironmentDescriptor, model: str, facts: Facts, verdicts: Sequence[Verdict]) -> str:
    """Store what was known and what the gates said of it; its digest.

    Raises:
        MlopsError: the registry cannot be written.
    """
    report = {
        "facts": facts.model_dump(mode="json"),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
    }
    # Not canonical JSON, which has no whole numbers beyond 2**53: whatever was found must be kept.
    content = json.dumps(report, sort_keys=True, separators=(",", ":")).encode()
    digest = digest_of_bytes(content)
    with contextlib.suppress(store.PreconditionFailedError):  # the very same report is there already
        store.put_new(descriptor.registry_bucket, _key(model, digest), content)
    return digest


def read_report(descriptor: EnvironmentDescriptor, model: str, digest: str) -> bytes:
    """A stored report, as JSON.

    Raises:
        MlopsError: it is not there, or was changed.
    """
    key = _key(model, digest)
    content = store.get(descriptor.registry_bucket, key, limit=LARGEST).content
    if digest_of_bytes(content) != digest:
        raise MlopsError(f"s3://{descriptor.registry_bucket}/{key} was changed", fix="do not rely on it")
    return content


def _key(model: str, digest: str) -> str:
    return f"reports/{checked_name(model)}/{hex_of(digest)}.json"
