"""Clients of the pods of an endpoint, through the Kubernetes API: no access to the network of the cluster is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lightkube import Client

from pipelines.cluster.connection import connect
from pipelines.cluster.rollout_pods import ServingPod, live_pods
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.serving.probe import TIMEOUT_SECONDS, EndpointClient, UnavailableError


@contextmanager
def open_pods(descriptor: EnvironmentDescriptor, model: str) -> Iterator[list[EndpointClient]]:
    """Open a client of every ready pod of a model that receives live traffic.

    Args:
        descriptor: the environment, whose cluster KUBECONFIG names.
        model: the model's name.

    Yields:
        At least one client. Its URL names the pod.

    Raises:
        UnavailableError: no pod is ready.
        MlopsError: the model has no endpoint there, or the cluster refuses.
    """
    from pipelines.cluster.pod_connections import pod_connections  # late: a rollback moves traffic before it needs this

    with connect(descriptor.namespace) as client, pod_connections(client) as connections, ExitStack() as stack:
        pods = _ready_pods(client, descriptor, model)
        clients = []
        for pod in pods:
            connection = connections.connection(descriptor.namespace, pod.name, pod.port, timeout=TIMEOUT_SECONDS)
            opened = EndpointClient(_url(descriptor, pod), model, connection=connection)
            stack.callback(opened.close)
            clients.append(opened)
        yield clients


def running_bundles(descriptor: EnvironmentDescriptor, model: str) -> set[str]:
    """Return the digests of the bundles that the ready pods of a model serve. No pod is asked.

    A caller needs no right to connect to pods, with which requests could be sent past the load balancer.

    Args:
        descriptor: the environment, whose cluster KUBECONFIG names.
        model: the model's name.

    Raises:
        UnavailableError: no pod is ready.
        MlopsError: the model has no endpoint there, or the cluster refuses.
    """
    with connect(descriptor.namespace) as client:
        return {pod.bundle or "an unknown bundle" for pod in _ready_pods(client, descriptor, model)}


def _ready_pods(client: Client, descriptor: EnvironmentDescriptor, model: str) -> list[ServingPod]:
    if model not in descriptor.endpoints:
        raise MlopsError(f"{model} has no endpoint in {descriptor.name}", fix="release a bundle there and deploy it")
    pods = live_pods(client, model)
    if not pods:
        raise UnavailableError(
            f"no pod of {model} in {descriptor.name} is ready: expected one of its live release",
            fix=f"kubectl -n {descriptor.namespace} get pods",
        )
    return pods


def is_ready_pod(descriptor: EnvironmentDescriptor, model: str, client: EndpointClient) -> bool:
    """Return whether the pod of a client is still ready and receives live traffic.

    Raises:
        MlopsError: the cluster refuses.
    """
    with connect(descriptor.namespace) as kubernetes:
        pods = live_pods(kubernetes, model)
    return client.url in {_url(descriptor, pod) for pod in pods}


def _url(descriptor: EnvironmentDescriptor, pod: ServingPod) -> str:
    return f"pod://{descriptor.namespace}/{pod.name}"
