"""Find the pods behind a Service."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import ServicePort
from lightkube.resources.core_v1 import Pod, Service

from pipelines.cluster.connection import read_with_retry
from pipelines.declarations.errors import MlopsError


@dataclass(frozen=True)
class PodPort:
    """A port of a pod.

    Attributes:
        pod: name of the pod.
        port: port that the pod listens on.
    """

    pod: str
    port: int


def ready_pods(client: Client, service: str) -> list[PodPort]:
    """Return the ready pods behind the first port of a Service, sorted by name.

    A pod with readiness gates is ready only if they are met. The namespace of an endpoint has such a gate for each
    load balancer: the AWS Load Balancer Controller meets it when the load balancer finds the pod healthy.

    Args:
        client: client of the Service's namespace.
        service: name of the Service.

    Raises:
        MlopsError: the Service does not exist, or selects no pods.
    """
    try:
        found = read_with_retry(lambda: client.get(Service, service))
    except ApiError as error:
        if error.status.code != 404:
            raise
        raise MlopsError(
            f"no Service {service!r} in namespace {client.namespace!r}",
            fix="check that KUBECONFIG names the cluster of the environment",
        ) from None
    spec = found.spec
    if spec is None or not spec.selector or not spec.ports:
        raise MlopsError(f"the Service {service!r} in namespace {client.namespace!r} selects no pods")
    selector, target = dict(spec.selector), spec.ports[0]
    pods: Iterable[Pod] = read_with_retry(lambda: list(client.list(Pod, labels=selector)))
    listed = [
        PodPort(str(pod.metadata.name), container_port(pod, target)) for pod in pods if pod.metadata and is_ready(pod)
    ]
    return sorted(listed, key=lambda one: one.pod)


def is_ready(pod: Pod) -> bool:
    """Return whether a pod takes requests: it is ready, and is not being deleted."""
    if pod.metadata is None or pod.metadata.deletionTimestamp is not None:
        return False
    conditions = (pod.status.conditions if pod.status else None) or []
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def container_port(pod: Pod, port: ServicePort) -> int:
    """Return the port of a pod to which a port of a Service leads.

    Raises:
        MlopsError: the Service names a port that no container has.
    """
    target = port.targetPort or port.port
    if isinstance(target, int):
        return target
    containers = pod.spec.containers if pod.spec else []
    for container in containers:
        for declared in container.ports or []:
            if declared.name == target:
                return declared.containerPort
    name = pod.metadata.name if pod.metadata else None
    raise MlopsError(f"the pod {name} has no port named {target!r}, which its Service leads to")
