"""Move an endpoint's traffic to another bundle, without the rollout steps."""

from __future__ import annotations

import time

from pipelines.cluster.rollouts import serve_bundle, wait_for_rollout
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.serving.probe import open_endpoint

POLL_SECONDS = 0.02


def move_traffic(descriptor: EnvironmentDescriptor, model: str, digest: str, *, deadline_seconds: float = 120) -> float:
    """Make a model's endpoint serve a bundle, and wait until it receives all traffic. Idempotent.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: digest of the bundle.
        deadline_seconds: how long to wait.

    Returns:
        Seconds until the endpoint first reported the bundle.

    Raises:
        MlopsError: the endpoint does not exist, the cluster refuses, or the deadline passed.
    """
    began = time.monotonic()
    serve_bundle(descriptor.namespace, model, digest)
    with open_endpoint(descriptor, model) as endpoint:
        while True:
            try:
                if endpoint.served() == digest:
                    break
                found = "it still serves another bundle"
            except MlopsError as error:  # pods are being replaced
                found = error.what
            if time.monotonic() - began > deadline_seconds:
                raise MlopsError(
                    f"the endpoint of {model} in {descriptor.name} does not serve {digest} "
                    f"after {deadline_seconds:.0f} s: {found}"
                )
            time.sleep(POLL_SECONDS)
    moved = time.monotonic() - began
    left = max(deadline_seconds - moved, 1.0)
    wait_for_rollout(descriptor.namespace, model, on_change=lambda _: None, deadline_seconds=left)
    return moved
