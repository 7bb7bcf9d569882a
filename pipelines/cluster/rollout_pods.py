"""Find the pods of the release that is live.

They are selected by the Rollout and its stable pod template, not by a Service: the Services of an endpoint take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod

from pipelines.cluster.connection import connect, read_with_retry
from pipelines.cluster.jobs import created_at
from pipelines.cluster.pod_logs import WORKLOAD
from pipelines.cluster.rollouts import Rollout
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import serving_name

HASH = "rollouts-pod-template-hash"
"""Label of a pod with the hash of its template."""

PORT_NAME = "http"
"""Name of the port that a model server listens on."""


@dataclass(frozen=True)
class ServingPod:
    """A ready pod of a release.

    Attributes:
        name: name of the pod.
        address: its IP address.
        port: port that its server listens on.
        bundle: digest of the bundle that its server was started with, which a pod cannot change; "" if it names none.
    """

    name: str
    address: str
    port: int
    bundle: str = ""


def live_pods(client: Client, rollout: str) -> list[ServingPod]:
    """Return the ready pods of the live release of a Rollout, sorted by name.

    A pod with readiness gates is ready only if they are met. The namespace of an endpoint has such a gate for each
    load balancer: the AWS Load Balancer Controller meets it when the load balancer finds the pod healthy.

    Args:
        client: client of the Rollout's namespace.
        rollout: name of the Rollout.

    Raises:
        MlopsError: the Rollout does not exist, or its pods have no port named `http`.
    """
    try:
        found = read_with_retry(lambda: client.get(Rollout, rollout)).to_dict()  # type: ignore[no-untyped-call]
    except ApiError as error:
        if error.status.code != 404:
            raise
        raise MlopsError(
            f"no Rollout {rollout!r} in namespace {client.namespace!r}",
            fix="check that KUBECONFIG names the cluster of the environment",
        ) from None
    live = (found.get("status") or {}).get("stableRS")
    if not live:
        return []
    labels = {**found["spec"]["selector"]["matchLabels"], HASH: live}
    pods = read_with_retry(lambda: list(client.list(Pod, labels=labels)))
    return sorted((_serving(pod) for pod in pods if is_ready(pod)), key=lambda pod: pod.name)


def is_ready(pod: Pod) -> bool:
    """Return whether a pod takes requests: it is ready, and is not being deleted."""
    if pod.metadata is None or pod.metadata.deletionTimestamp is not None:
        return False
    conditions = (pod.status.conditions if pod.status else None) or []
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def pods_with_bundle(client: Client, workload: str, bundle: str) -> list[Pod]:
    """Return the pods of a workload whose command names a bundle, the newest first."""
    pods = sorted(client.list(Pod, labels={WORKLOAD: workload}), key=created_at, reverse=True)
    return [
        pod for pod in pods if any(bundle in (one.command or ()) for one in (pod.spec.containers if pod.spec else ()))
    ]


def why_not_ready(namespace: str, model: str, bundle: str) -> str:
    """Return why the newest pod of a release is not ready; "" if there is none, or it cannot be read.

    Args:
        namespace: namespace of the endpoint.
        model: name of the model.
        bundle: digest of the bundle that the pod serves.
    """
    with suppress(MlopsError, ApiError, httpx2.HTTPError), connect(namespace) as client:
        for pod in pods_with_bundle(client, serving_name(model), bundle):
            problem = problem_of(pod)
            if problem and pod.metadata is not None:
                return f"the pod {pod.metadata.name} is not ready: {problem}"
    return ""


def problem_of(pod: Pod) -> str:
    """Return why a pod is not ready, in the words of Kubernetes; "" if it is, or nothing says why."""
    status = pod.status
    if status is None:
        return ""
    conditions = {one.type: one for one in status.conditions or ()}
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return _words(scheduled.reason, scheduled.message)
    for container in (*(status.initContainerStatuses or ()), *(status.containerStatuses or ())):
        ended = container.lastState.terminated if container.lastState else None
        if ended is not None and not container.ready:
            return f"the container {container.name} ended with exit code {ended.exitCode}"
        waiting = container.state.waiting if container.state else None
        if waiting is not None and waiting.message:
            return _words(waiting.reason, waiting.message)
    for gate in (pod.spec.readinessGates if pod.spec else None) or ():
        condition = conditions.get(gate.conditionType)
        if condition is None or condition.status != "True":
            why = _words(condition.reason, condition.message) if condition is not None else ""
            return f"its readiness gate {gate.conditionType} is not met" + (f": {why}" if why else "")
    ready = conditions.get("Ready")
    return "" if ready is None or ready.status == "True" else _words(ready.reason, ready.message)


def _words(reason: str | None, message: str | None) -> str:
    return ": ".join(text for text in (reason, message) if text)


def _serving(pod: Pod) -> ServingPod:
    name = str(pod.metadata.name if pod.metadata else "")
    for container in pod.spec.containers if pod.spec else []:
        for declared in container.ports or []:
            if declared.name == PORT_NAME:
                address = pod.status.podIP if pod.status else None
                words = [*(container.command or []), *(container.args or [])]
                return ServingPod(name, address or "", declared.containerPort, _option(words, "--bundle"))
    raise MlopsError(f"the pod {name} has no port named {PORT_NAME!r}")


def _option(words: Sequence[str], name: str) -> str:
    """Return the word that follows an option in a command line; "" if it is not there."""
    return next((value for option, value in pairwise(words) if option == name), "")
