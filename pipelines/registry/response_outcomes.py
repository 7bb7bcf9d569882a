"""What became of alarms: `reports/<model>/alarms/<time>-<id>.json` in the registry, written once and never replaced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipelines.declarations.digests import Digest, canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import ActiveResponse
from pipelines.declarations.names import checked_name
from pipelines.declarations.timestamps import Timestamp
from pipelines.registry import store
from pipelines.registry.ledger import CLOCK_DIFFERENCE, LONGEST_REASON, words

LARGEST_OUTCOME = 8 << 10
"""Size limit of an outcome, in bytes."""

MOST = 100_000
"""Number of outcomes of a model that are listed."""

MOST_OF_AN_ID = 20
"""Number of outcomes with the same id that are read. An alarm that is handled again does no harm."""


class ResponseOutcome(Declaration):
    """What became of an alarm.

    Attributes:
        id: identity of the alarm.
        model, environment: the deployment.
        response: the response that it requested.
        outcome: whether that was done, or the alarm was ignored.
        detail: what was done, or why it was ignored.
        reason: the alarm's reason.
        bundle: the bundle that the alarm named.
        at: when it was handled.
        run: URL of the workflow run; "" outside a workflow.
    """

    format: Literal["mlops/response-outcome/v1"] = "mlops/response-outcome/v1"
    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{2,64}$")]
    model: str
    environment: str
    response: ActiveResponse
    outcome: Literal["done", "ignored"]
    detail: Annotated[str, Field(max_length=LONGEST_REASON)]
    reason: Annotated[str, Field(max_length=LONGEST_REASON)]
    bundle: Digest | None = None
    at: Timestamp
    run: str = ""


def write_outcome(descriptor: EnvironmentDescriptor, outcome: ResponseOutcome) -> None:
    """Write an outcome. Its detail and reason are cut to fit.

    Raises:
        MlopsError: the registry cannot be written.
    """
    fitting = outcome.model_copy(update={"detail": words(outcome.detail), "reason": words(outcome.reason)})
    key = f"{_key(outcome.model, outcome.at)}-{outcome.id}.json"
    try:
        store.put_new(descriptor.registry_bucket, key, canonical_json(fitting.model_dump(mode="json")))
    except store.PreconditionFailedError:
        return


def find_outcomes(descriptor: EnvironmentDescriptor, model: str, alarm: str) -> list[ResponseOutcome]:
    """Return the newest outcomes of the alarms with an id, the newest first; none if it was not handled yet.

    Raises:
        MlopsError: the registry cannot be read, or an outcome is malformed.
    """
    found = [key for key in _keys(descriptor, model) if _id_in(key) == alarm]
    return [_read(descriptor, key) for key in found[:MOST_OF_AN_ID]]


def read_outcomes(
    descriptor: EnvironmentDescriptor, model: str, *, since: datetime | None = None, most: int = 20
) -> list[ResponseOutcome]:
    """Return the newest outcomes of a model, the newest first. Those of the future are left out.

    Args:
        descriptor: the environment.
        model: the model's name.
        since: leave out those before.
        most: number of outcomes to return.

    Raises:
        MlopsError: the registry cannot be read, or an outcome is malformed.
    """
    first = _key(model, since) if since is not None else ""
    last = _key(model, datetime.now(UTC) + CLOCK_DIFFERENCE)
    keys = [key for key in _keys(descriptor, model) if first <= key <= last]
    return [_read(descriptor, key) for key in keys[:most]]


def _prefix(model: str) -> str:
    return f"reports/{checked_name(model)}/alarms/"


def _key(model: str, at: datetime) -> str:
    """Return the beginning of the key of an outcome."""
    return f"{_prefix(model)}{at:%Y%m%dT%H%M%SZ}"


def _keys(descriptor: EnvironmentDescriptor, model: str) -> list[str]:
    return sorted(store.sizes(descriptor.registry_bucket, _prefix(model), limit=MOST), reverse=True)


def _id_in(key: str) -> str:
    return key.rpartition("/")[2].partition("-")[2].removesuffix(".json")


def _read(descriptor: EnvironmentDescriptor, key: str) -> ResponseOutcome:
    content = store.get(descriptor.registry_bucket, key, limit=LARGEST_OUTCOME).content
    try:
        return ResponseOutcome.model_validate_json(content)
    except ValueError:
        where = f"s3://{descriptor.registry_bucket}/{key}"
        raise MlopsError(f"{where} is not the outcome of an alarm", fix="find out who wrote it") from None
