"""Verify an endpoint: the bundle it serves, its golden predictions and its latency."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.trial import percentile
from pipelines.serving.golden import GoldenMismatchError, check_golden, row_count
from pipelines.serving.probe import golden_of, open_endpoint

PROBES = 30
"""Number of one-row requests that a verification sends and times."""


@dataclass(frozen=True)
class Verification:
    """Result of a verification that passed.

    Attributes:
        bundle: digest of the bundle that the endpoint serves.
        rows: number of golden rows that it predicted correctly.
        requests: number of one-row requests that it answered.
        median_ms, p99_ms: latency of those requests, in milliseconds.
    """

    bundle: str
    rows: int
    requests: int
    median_ms: float
    p99_ms: float


def verify(descriptor: EnvironmentDescriptor, model: str, digest: str, budget_ms: float) -> Verification:
    """Verify that a model's endpoint serves a bundle, predicts what it should, and is fast enough.

    `budget_ms` is the budget for the 99th percentile inside the server. The latency measured here includes the network
    and other load, so its median must meet the budget.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: the bundle that the endpoint must serve.
        budget_ms: latency budget of the model, in milliseconds.

    Raises:
        MlopsError: the endpoint serves another bundle, predicts something else, answers with an error, or is too slow.
    """
    golden = golden_of(descriptor, model, digest)
    if row_count(golden) == 0:
        raise MlopsError(f"the bundle {digest} has no golden predictions to verify its endpoint with")
    with open_endpoint(descriptor, model) as endpoint:
        found = endpoint.served()
        if found != digest:
            raise MlopsError(f"bundle that {endpoint.url} serves: expected {digest}, found {found}")
        try:
            times = check_golden(endpoint.infer, golden, digest, single_row_requests=PROBES)
        except GoldenMismatchError as error:
            raise MlopsError(f"{endpoint.url}: {error.what}", fix=error.fix) from None
    median = percentile(times, 0.5)
    if median > budget_ms:
        raise MlopsError(
            f"median latency of {descriptor.endpoints[model]}: expected at most {budget_ms:g} ms, found {median:.1f} ms"
        )
    return Verification(digest, row_count(golden), PROBES, median, percentile(times, 0.99))
