"""Decisions of a model's monitor in the logs bucket: `monitoring/models/<model>/responses/<time>-<id>.json`.

A decision is written once, before its alarm is sent. `<time>-<id>.sent`, written afterwards, marks it as sent: a
monitor that is killed between the two leaves a decision that its next run sends.
"""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError

from pipelines.data.glue_client import s3
from pipelines.declarations.digests import canonical_json
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.response_policy import ResponseDecision
from pipelines.registry import store

LARGEST_DECISION = 16 << 10
"""Size limit of a decision, in bytes."""

NEWEST = 100
"""Number of decisions that count: a cool-down never reaches further back."""

_SENT = ".sent"
_DECISION = ".json"


def responses_prefix(model: str) -> str:
    """Return the key prefix of the decisions about a model."""
    return f"monitoring/models/{model}/responses/"


def write_decision(descriptor: EnvironmentDescriptor, decision: ResponseDecision) -> None:
    """Write a decision. If it was written already, the first one is kept.

    Raises:
        MlopsError: the logs bucket cannot be written.
    """
    content = canonical_json(decision.model_dump(mode="json"))
    with suppress(store.PreconditionFailedError):
        store.put_new(descriptor.logs_bucket, _key(decision) + _DECISION, content, client=s3(descriptor))


def mark_sent(descriptor: EnvironmentDescriptor, decision: ResponseDecision) -> None:
    """Mark the alarm of a decision as sent.

    Raises:
        MlopsError: the logs bucket cannot be written.
    """
    key = _key(decision) + _SENT
    store.put(descriptor.logs_bucket, key, b"", content_type="text/plain", client=s3(descriptor))


def read_decisions(
    descriptor: EnvironmentDescriptor, model: str
) -> tuple[list[ResponseDecision], list[ResponseDecision]]:
    """Return the newest decisions about a model, the newest first, and those of them whose alarm was not sent.

    Raises:
        MlopsError: the logs bucket cannot be read, or a decision is malformed.
    """
    client, bucket, prefix = s3(descriptor), descriptor.logs_bucket, responses_prefix(model)
    keys = {listed.key for listed in store.listing(bucket, prefix, client=client)}
    found, unsent = [], []
    for key in sorted((key for key in keys if key.endswith(_DECISION)), reverse=True)[:NEWEST]:
        content = store.get(bucket, key, limit=LARGEST_DECISION, client=client).content
        try:
            decision = ResponseDecision.model_validate_json(content)
        except ValidationError:
            raise MlopsError(f"s3://{bucket}/{key} is not a decision", fix="find out who wrote it") from None
        found.append(decision)
        if key.removesuffix(_DECISION) + _SENT not in keys:
            unsent.append(decision)
    return found, unsent


def _key(decision: ResponseDecision) -> str:
    return f"{responses_prefix(decision.model)}{decision.window_end:%Y%m%dT%H%M%SZ}-{decision.id}"
