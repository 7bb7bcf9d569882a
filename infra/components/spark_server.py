"""Spark Connect server for datasets whose contract says `engine: spark`: Sail in the cluster, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import read_prefix
from infra.components.job_component import JobContext
from infra.components.labels import metadata, selector
from infra.components.namespace import Namespace, NamespaceArgs
from infra.components.pod import PodArgs, pod_spec
from infra.components.spark_workers import (
    DRIVER_PORT,
    WORKER_LABELS,
    WORKER_PORT,
    SparkWorkers,
    SparkWorkersArgs,
    memory_settings,
    worker_settings,
)
from infra.components.storage import Storage
from infra.components.workload import Workload, WorkloadArgs
from infra.policies.exemptions import exemptions
from pipelines.declarations.environment import PRIVATE_RANGES
from pipelines.declarations.model import Resources
from pipelines.declarations.names import table_name
from pipelines.declarations.spark_jobs import SPARK_SERVER, SPARK_WORKER

PORT = 50051
"""Port of the server, and of its Service."""

_EXEMPTION = {
    "k8s-survives-a-drain": "a session lives in one server; a job that lost its server is tried again",
    "state-protected": "the namespace holds no data, and goes when no contract needs the server",
}
_WITH_WORKERS = {"k8s-own-account": "the server starts its workers by the cluster's API, in a namespace of its own"}


@dataclass(frozen=True)
class SparkAccess:
    """Access of a job to a Spark server.

    Attributes:
        variables: environment variables (`EnvVar`).
        egress: egress rules of a network policy.
    """

    variables: Sequence[Mapping[str, Any]]
    egress: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SparkServerArgs:
    """Arguments of `SparkServer`.

    Attributes:
        context: the settings that all jobs share. Without an image, there is no server.
        datasets: the datasets whose tables it reads.
        clients: workloads that may connect to it.
        storage: holds the tables.
        adopting: Kubernetes provider that takes over a namespace that exists; None for the default provider.
    """

    context: JobContext
    datasets: Sequence[str]
    clients: Sequence[str]
    storage: Storage
    adopting: k8s.Provider | None = None


class SparkServer(pulumi.ComponentResource):
    """A Sail server that reads the tables of some datasets, and that only jobs on them reach.

    The server runs the code that its clients send, with its own role. So the role reads these tables and nothing else,
    and the server has a namespace of its own. Only a server with workers has a token for the cluster's API, with which
    it starts them. With a server elsewhere, it creates nothing.

    Attributes:
        access: leads jobs to the server.
    """

    def __init__(self, args: SparkServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:data:SparkServer", SPARK_SERVER, None, opts)
        config = args.context.environment.config
        remote, has_workers = config.spark.remote, config.spark.workers > 0
        if remote is not None:
            port = int(remote.rpartition(":")[2])
            peers = [{"ipBlock": {"cidr": cidr}} for cidr in PRIVATE_RANGES]
            self.access = _access(remote, port, peers)
        else:
            self._server(args)
            address = f"sc://{SPARK_SERVER}.{config.spark_namespace}.svc:{PORT}"
            self.access = _access(address, PORT, [_pods_of(config.spark_namespace, selector(SPARK_SERVER))])
        self.register_outputs(exemptions({**_EXEMPTION, **(_WITH_WORKERS if has_workers else {})}))

    def _server(self, args: SparkServerArgs) -> None:
        context, child = args.context, pulumi.ResourceOptions(parent=self)
        environment, config = context.environment, context.environment.config
        namespace = Namespace(
            SPARK_SERVER,
            NamespaceArgs(
                environment=environment, adopting=args.adopting, name=config.spark_namespace, protected=False
            ),
            child,
        ).name
        tables = [f"{environment.catalog_database}/{table_name(dataset)}/" for dataset in args.datasets]
        statements = read_prefix(args.storage.lake, *tables)
        clients = [_pods_of(config.namespace, selector(client)) for client in args.clients]
        ingress, egress = [_rule("from", clients, PORT)], []
        if config.spark.workers:
            workers = SparkWorkersArgs(
                environment=environment,
                namespace=namespace,
                statements=statements,
                clients=len(args.clients),
            )
            SparkWorkers(SPARK_WORKER, workers, child)
            peers = [{"podSelector": {"matchLabels": WORKER_LABELS}}]
            ingress.append(_rule("from", peers, DRIVER_PORT))
            egress.append(_rule("to", peers, WORKER_PORT))
        workload = Workload(
            SPARK_SERVER,
            WorkloadArgs(
                environment=environment,
                namespace=namespace,
                namespace_name=config.spark_namespace,
                statements=statements,
                ingress=ingress,
                egress=egress,
            ),
            child,
        )
        # A deployment needs no node for the server, so do not wait for pods: jobs wait for a server that starts.
        shared = metadata(environment, SPARK_SERVER, None)
        annotations = {**shared["annotations"], "pulumi.com/skipAwait": "true"}
        described = {"name": SPARK_SERVER, "namespace": namespace, **shared, "annotations": annotations}
        k8s.core.v1.Service(
            SPARK_SERVER,
            metadata=described,
            spec={
                "type": "ClusterIP",
                "selector": selector(SPARK_SERVER),
                "ports": [{"name": "grpc", "port": PORT, "targetPort": "grpc", "protocol": "TCP"}],
            },
            opts=child,
        )
        if context.image is not None:
            after_identity = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[workload]))
            self._deployment(args, context.image, described, after_identity)

    def _deployment(
        self, args: SparkServerArgs, image: str, described: dict[str, Any], opts: pulumi.ResourceOptions
    ) -> None:
        environment = args.context.environment
        settings = environment.config.spark
        probe = {"tcpSocket": {"port": "grpc"}}
        ports = [{"name": "grpc", "containerPort": PORT}]
        mode: list[dict[str, Any]] = [{"name": "SAIL_MODE", "value": "local"}]
        if settings.workers:
            ports.append({"name": "driver", "containerPort": DRIVER_PORT})
            mode = worker_settings(environment, image)
        pod = PodArgs(
            environment=environment,
            name="sail",
            service_account=SPARK_SERVER,
            image=image,
            command=["python", "-m", "pipelines.data.sail_process", "$(HOST)", str(PORT)],
            descriptor=args.context.descriptor,
            resources=Resources(cpu=settings.cpu, memory=settings.memory),
            scratch=settings.scratch,
            variables=[
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                *mode,
                *memory_settings(settings),
            ],
            container={
                "ports": ports,
                "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 60},
                "readinessProbe": {**probe, "periodSeconds": 5},
                "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
            },
            pod={"automountServiceAccountToken": settings.workers > 0},
        )
        shared = metadata(environment, SPARK_SERVER, None)
        k8s.apps.v1.Deployment(
            SPARK_SERVER,
            metadata=described,
            spec={
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector(SPARK_SERVER)},
                "template": {"metadata": shared, "spec": pod_spec(pod)},
            },
            opts=opts,
        )


def _pods_of(namespace: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the peer of the pods in a namespace that have some labels."""
    within = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return {"namespaceSelector": within, "podSelector": {"matchLabels": dict(labels)}}


def _rule(side: str, peers: Sequence[Mapping[str, Any]], port: int) -> dict[str, Any]:
    return {side: list(peers), "ports": [{"protocol": "TCP", "port": port}]}


def _access(address: str, port: int, peers: Sequence[Mapping[str, Any]]) -> SparkAccess:
    variables = [{"name": "SPARK_REMOTE", "value": address}]
    return SparkAccess(variables, [_rule("to", peers, port)])
