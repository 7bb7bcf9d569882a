"""Content of the inference log: `serving.inference_log` in `model.yaml`, without columns that the contract classifies.

See docs/decisions/0042-keep-personal-data-out-of-the-inference-log.md.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import ColumnName

if TYPE_CHECKING:
    from pipelines.declarations.bundle import Bundle
    from pipelines.declarations.model import Model

MOST_GROUPS = 50
"""Listed values of a column whose rows still count as groups of people."""

NULL_GROUP = "null"
"""Group of a row without a value."""

LOG_POLICY = "LOG_POLICY"
"""Environment variable of a serving pod: its `LogPolicy` as JSON."""

SampleShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class InferenceLogging(Declaration):
    """Settings of a model's inference log.

    Attributes:
        sample: share of the answered requests whose inputs and predictions are logged, chosen by their ids and a key.
            Errors and counts are always kept.
    """

    sample: SampleShare = 1.0


class LogPolicy(Declaration):
    """Policy of a server for its inference log.

    Attributes:
        sample: share of the answered requests that are logged.
        withheld: columns whose values are never logged.
        groups: withheld features of which the group of each row is logged, because the model's fairness is monitored.
    """

    sample: SampleShare = 1.0
    withheld: tuple[ColumnName, ...] = ()
    groups: tuple[ColumnName, ...] = ()


def log_policy(model: Model, contract: Contract) -> LogPolicy:
    """Return what the servers of a model log, by its declaration and the contract of its dataset.

    A personal column is withheld. The group is kept only of a feature that has a bound on fairness and whose values the
    contract lists.
    """
    withheld = tuple(sorted(name for name, column in contract.columns.items() if is_personal(column)))
    bounded = {bound.attribute for bound in model.gates.fairness}
    groups = (name for name in withheld if name in bounded and name in model.features)
    return LogPolicy(
        sample=model.serving.inference_log.sample,
        withheld=withheld,
        groups=tuple(name for name in groups if lists_groups(contract.columns[name])),
    )


def lists_groups(column: Column) -> bool:
    """Return True if the contract lists the values of a column, and they are few enough to be groups."""
    if column.valid_values is None:
        return column.logical_type == "boolean"
    return len(column.valid_values) <= MOST_GROUPS


def sampling_key(manifest: Bundle) -> bytes:
    """Return the key by which the requests of a bundle are chosen for a sample.

    Callers choose the ids of their requests. Nothing that they get tells them this digest, so they can choose neither
    requests that are all logged, and would each count several times, nor some that never are.
    """
    return bytes.fromhex(manifest.files["evaluation.json"].sha256.removeprefix("sha256:"))


def is_sampled(request_id: bytes, sample: float, key: bytes) -> bool:
    """Return True if a request belongs to the sample; the same id and key always give the same answer.

    Args:
        request_id: id of the request, as JSON.
        sample: share of the requests in the sample.
        key: see `sampling_key`.
    """
    return sample_hash(request_id, key) < sample_limit(sample)


def sample_hash(request_id: bytes, key: bytes) -> bytes:
    """Return the hash that decides about an id. The request belongs to a sample if it is below `sample_limit`."""
    found = _keyed(key).copy()  # half the time of a new one, which hashes the key again
    found.update(request_id)
    return found.digest()


@lru_cache(maxsize=64)
def _keyed(key: bytes) -> blake2b:
    return blake2b(digest_size=8, key=key)


def sample_limit(sample: float) -> bytes:
    """Return the first hash that does not belong to a sample."""
    return math.ceil(sample * 2**64).to_bytes(8, "big") if sample < 1 else b"\xff" * 9
