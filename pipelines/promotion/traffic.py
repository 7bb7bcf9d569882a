"""Move an endpoint's traffic to another bundle, without the rollout steps."""

from __future__ import annotations

import time

from pipelines.cluster.rollouts import RolloutState, serve_bundle, wait_for_rollout
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.pod_endpoints import open_pods


def move_traffic(descriptor: EnvironmentDescriptor, model: str, digest: str, *, deadline_seconds: float = 120) -> float:
    """Make a model's endpoint serve a bundle, and wait until its pods receive all traffic. Idempotent.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: digest of the bundle.
        deadline_seconds: how long to wait.

    Returns:
        Seconds until all traffic went to pods of the newest specification.

    Raises:
        MlopsError: the endpoint does not exist, the cluster refuses, the deadline passed, or a pod serves another
            bundle.
    """
    if model not in descriptor.endpoints:
        raise MlopsError(f"{model} has no endpoint in {descriptor.name}", fix="release a bundle there and deploy it")
    began = time.monotonic()
    serve_bundle(descriptor.namespace, model, digest)
    moved: list[float] = []

    def watch(state: RolloutState) -> None:
        if state.moved and not moved:
            moved.append(time.monotonic() - began)

    wait_for_rollout(descriptor.namespace, model, on_change=watch, deadline_seconds=deadline_seconds)
    with open_pods(descriptor, model) as pods:
        for pod in pods:
            if (served := pod.served()) != digest:
                raise MlopsError(f"bundle that {pod.url} serves: expected {digest}, found {served}")
    return moved[0]
