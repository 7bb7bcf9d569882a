"""Store the facts and verdicts of a judgement in the registry, under the digest that ledger records refer to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import checked_name
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict
from pipelines.registry import store
from pipelines.registry.bundles import hex_of

LARGEST = 64 << 20
"""Size limit of a stored report, in bytes."""


def keep_report(descriptor: EnvironmentDescriptor, model: str, facts: Facts, verdicts: Sequence[Verdict]) -> str:
    """Store the facts and the verdicts on them, and return the digest of the report.

    Raises:
        MlopsError: the registry cannot be written.
    """
    report = {
        "facts": facts.model_dump(mode="json"),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
    }
    # Not canonical JSON, which cannot hold integers beyond 2**53.
    content = json.dumps(report, sort_keys=True, separators=(",", ":")).encode()
    digest = digest_of_bytes(content)
    with contextlib.suppress(store.PreconditionFailedError):  # the same report is stored already
        store.put_new(descriptor.registry_bucket, _key(model, digest), content)
    return digest


def read_report(descriptor: EnvironmentDescriptor, model: str, digest: str) -> bytes:
    """Return a stored report, as JSON.

    Raises:
        MlopsError: the report does not exist, or was changed.
    """
    key = _key(model, digest)
    content = store.get(descriptor.registry_bucket, key, limit=LARGEST).content
    if digest_of_bytes(content) != digest:
        raise MlopsError(f"s3://{descriptor.registry_bucket}/{key} was changed", fix="do not rely on it")
    return content


def _key(model: str, digest: str) -> str:
    return f"reports/{checked_name(model)}/{hex_of(digest)}.json"
