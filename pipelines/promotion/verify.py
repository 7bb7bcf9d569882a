"""Verify an endpoint: its load balancer, the bundle that each of its pods serves, golden predictions and latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.cluster.load_balancer import await_load_balancer
from pipelines.declarations.bundle import GoldenPredictions
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.pod_endpoints import is_ready_pod, open_pods
from pipelines.promotion.server_latency import LatencyHistogram, read_latency
from pipelines.serving.golden import GoldenMismatchError, check_golden, row_count
from pipelines.serving.probe import EndpointClient, UnavailableError, golden_of

PROBES = 30
"""Number of one-row requests that a verification sends to each pod."""


PATIENCE_SECONDS = 120.0
"""Time to wait for pods that do not answer yet, or not now."""

PAUSE_SECONDS = 2.0
"""Time between attempts to reach them."""


@dataclass(frozen=True)
class Verification:
    """Result of a verification that passed.

    Attributes:
        bundle: digest of the bundle that the endpoint serves.
        pods: number of pods that were verified.
        rows: number of golden rows that each predicted correctly.
        requests: number of one-row requests that they answered.
        median_ms, p99_ms: latency in the slowest pod, in milliseconds, as measured by its server.
    """

    bundle: str
    pods: int
    rows: int
    requests: int
    median_ms: float
    p99_ms: float


def verify(
    descriptor: EnvironmentDescriptor,
    model: str,
    digest: str,
    budget_ms: float,
    log: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Verify that an endpoint's load balancer sends its traffic to pods that each serve a bundle well.

    Every pod must serve the bundle, predict what it should, and be fast enough. Waits, within bounds, for
    what AWS does late; a wrong answer fails at once.

    The servers measure the latency, because the way through the Kubernetes API says nothing about them. Requests of
    other clients at that time count, so the median must meet the budget, which is for the 99th percentile.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: the bundle that the endpoint must serve.
        budget_ms: latency budget of the model, in milliseconds.
        log: receives what is waited for, and what cannot be seen.

    Raises:
        NotYetError: the load balancer was not ready in time.
        UnavailableError: no pod is ready, or one does not answer, for too long.
        MlopsError: a pod serves another bundle, predicts something else, answers with an error, or is too slow.
    """
    golden = golden_of(descriptor, model, digest)
    if row_count(golden) == 0:
        raise MlopsError(f"the bundle {digest} has no golden predictions to verify its endpoint with")
    await_load_balancer(descriptor.namespace, model, descriptor.region, log)
    until, said = time.monotonic() + PATIENCE_SECONDS, ""
    while True:
        try:
            return _verify_pods(descriptor, model, digest, golden, budget_ms)
        except UnavailableError as error:
            if time.monotonic() + PAUSE_SECONDS > until:
                raise
            if error.what != said:
                log(f"waiting: {error.what}")
                said = error.what
        time.sleep(PAUSE_SECONDS)


def _verify_pods(
    descriptor: EnvironmentDescriptor, model: str, digest: str, golden: GoldenPredictions, budget_ms: float
) -> Verification:
    found: list[LatencyHistogram] = []
    with open_pods(descriptor, model) as pods:
        for pod in pods:
            try:
                found.append(_verify_pod(pod, digest, golden, budget_ms))
            except UnavailableError:
                # The autoscaler may remove a pod at any time.
                if is_ready_pod(descriptor, model, pod) or (pod is pods[-1] and not found):
                    raise
    return Verification(
        digest,
        len(found),
        row_count(golden),
        PROBES * len(found),
        max(latency.quantile_ms(0.5) for latency in found),
        max(latency.quantile_ms(0.99) for latency in found),
    )


def _verify_pod(pod: EndpointClient, digest: str, golden: GoldenPredictions, budget_ms: float) -> LatencyHistogram:
    """Verify one pod, and return the latency of the requests that it answered during that time."""
    served = pod.served()
    if served != digest:
        raise MlopsError(f"bundle that {pod.url} serves: expected {digest}, found {served}")
    before = read_latency(pod.get_text("/metrics"))
    try:
        check_golden(pod.infer, golden, digest, single_row_requests=PROBES)
    except GoldenMismatchError as error:
        raise MlopsError(f"{pod.url}: {error.what}", fix=error.fix) from None
    latency = read_latency(pod.get_text("/metrics")).since(before)
    median = latency.quantile_ms(0.5)
    if median > budget_ms:
        raise MlopsError(f"median latency of {pod.url}: expected at most {budget_ms:g} ms, found {median:.1f} ms")
    return latency
