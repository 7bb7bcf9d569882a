"""Move an endpoint's traffic to another bundle, without the rollout steps."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelines.cluster.rollouts import RolloutState, switch_bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion.pod_endpoints import open_pods
from pipelines.serving.probe import UnavailableError

MOVE_SECONDS = 900.0
"""Time allowed for a move. The pods may need a new node, which takes minutes; Argo gives up on them after 600 s."""

QUESTIONS = 2
"""How often each pod is asked what it serves."""

SERVICE_SECONDS = 60.0
"""Time allowed for the Services after a promotion: Argo reports it as healthy before it changes their selectors."""

POLL_SECONDS = 0.2


def move_traffic(
    descriptor: EnvironmentDescriptor,
    model: str,
    digest: str,
    *,
    deadline_seconds: float = MOVE_SECONDS,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Make a model's endpoint serve a bundle at once, and wait until every answer comes from it. Idempotent.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: digest of the bundle.
        deadline_seconds: how long to wait.
        check: called while waiting; what it raises ends the wait.

    Returns:
        Seconds until all traffic went to pods of the newest specification.

    Raises:
        MlopsError: the endpoint does not exist, the cluster refuses, the deadline passed, or a pod serves another
            bundle.
    """
    if model not in descriptor.endpoints:
        raise MlopsError(f"{model} has no endpoint in {descriptor.name}", fix="release a bundle there and deploy it")
    began = time.monotonic()
    moved: list[float] = []

    def watch(state: RolloutState) -> None:
        if state.moved and not moved:
            moved.append(time.monotonic() - began)

    switch_bundle(descriptor.namespace, model, digest, on_change=watch, deadline_seconds=deadline_seconds, check=check)
    wait_until_served(descriptor, model, digest, check=check)
    return moved[0]


def wait_until_served(
    descriptor: EnvironmentDescriptor, model: str, digest: str, *, check: Callable[[], None] = lambda: None
) -> None:
    """Wait until every ready pod that receives live traffic answers with a bundle, each time it is asked.

    Args:
        descriptor: the environment.
        model: the model's name.
        digest: digest of the bundle.
        check: called while waiting; what it raises ends the wait.

    Raises:
        MlopsError: a pod still serves another bundle after a minute, or the cluster refuses.
    """
    until = time.monotonic() + SERVICE_SECONDS
    while problem := _why_not_served(descriptor, model, digest):
        check()
        if time.monotonic() > until:
            raise problem
        time.sleep(POLL_SECONDS)


def _why_not_served(descriptor: EnvironmentDescriptor, model: str, digest: str) -> MlopsError | None:
    """Ask every ready pod; return None if each answers with the bundle.

    Raises:
        MlopsError: the endpoint does not exist, or the cluster refuses.
    """
    try:
        with open_pods(descriptor, model) as pods:
            for pod in pods * QUESTIONS:
                if (served := pod.served()) != digest:
                    return MlopsError(f"bundle that {pod.url} serves: expected {digest}, found {served}")
    except UnavailableError as error:
        return error
    return None
