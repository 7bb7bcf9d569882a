"""Spark Connect server for datasets whose contract says `engine: spark`: Sail in one pod, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import read_prefix
from infra.components.job_component import JobContext
from infra.components.labels import metadata, selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.storage import Storage
from infra.components.workload import Workload, WorkloadArgs
from infra.policies.exemptions import exemptions
from pipelines.declarations.environment import PRIVATE_RANGES
from pipelines.declarations.model import Resources
from pipelines.declarations.names import table_name

NAME = "spark"
"""Name of the Deployment, of its Service and of its workload."""

PORT = 50051
"""Port of the server, and of its Service."""

_EXEMPTION = {"k8s-survives-a-drain": "a session lives in one server; a job that lost its server is tried again"}


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
    """

    context: JobContext
    datasets: Sequence[str]
    clients: Sequence[str]
    storage: Storage


class SparkServer(pulumi.ComponentResource):
    """A Sail server that reads the tables of some datasets, and that only jobs on them reach.

    The server runs the code that its clients send, with its own role. So the role reads these tables and nothing else,
    and the pod has no token for the cluster's API. With a server elsewhere, it creates nothing.

    Attributes:
        access: leads jobs to the server.
    """

    def __init__(self, args: SparkServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:data:SparkServer", NAME, None, opts)
        environment = args.context.environment
        remote = environment.config.spark.remote
        if remote is not None:
            port = int(remote.rpartition(":")[2])
            peers = [{"ipBlock": {"cidr": cidr}} for cidr in PRIVATE_RANGES]
            self.access = _access(remote, port, peers)
        else:
            self._server(args)
            address = f"sc://{NAME}.{environment.config.namespace}.svc:{PORT}"
            self.access = _access(address, PORT, [{"podSelector": {"matchLabels": selector(NAME)}}])
        self.register_outputs(exemptions(_EXEMPTION))

    def _server(self, args: SparkServerArgs) -> None:
        context, child = args.context, pulumi.ResourceOptions(parent=self)
        environment = context.environment
        tables = [f"{environment.catalog_database}/{table_name(dataset)}/" for dataset in args.datasets]
        workload = Workload(
            NAME,
            WorkloadArgs(
                environment=environment,
                namespace=context.namespace,
                statements=read_prefix(args.storage.lake, *tables),
                ingress=[
                    {
                        "from": [{"podSelector": {"matchLabels": selector(client)}} for client in args.clients],
                        "ports": [{"protocol": "TCP", "port": PORT}],
                    }
                ],
            ),
            child,
        )
        shared = metadata(environment, NAME, None)
        described = {"name": NAME, "namespace": context.namespace, **shared}
        k8s.core.v1.Service(
            NAME,
            # The server starts after the service, or not at all without an image: do not wait for pods here.
            metadata={**described, "annotations": {**shared["annotations"], "pulumi.com/skipAwait": "true"}},
            spec={
                "type": "ClusterIP",
                "selector": selector(NAME),
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
        pod = PodArgs(
            environment=environment,
            name="sail",
            service_account=NAME,
            image=image,
            command=["python", "-m", "pipelines.data.sail_process", "$(HOST)", str(PORT)],
            descriptor=args.context.descriptor,
            resources=Resources(cpu=settings.cpu, memory=settings.memory),
            scratch=settings.scratch,
            variables=[
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "SAIL_MODE", "value": "local"},
                # Beyond this, queries write to the scratch volume. The rest is for Python code and for buffers.
                {"name": "SAIL_RUNTIME__MEMORY_POOL__TYPE", "value": "fair"},
                {"name": "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE", "value": str(_half(settings.memory))},
            ],
            container={
                "ports": [{"name": "grpc", "containerPort": PORT}],
                "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 60},
                "readinessProbe": {**probe, "periodSeconds": 5},
                "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
            },
        )
        shared = metadata(environment, NAME, None)
        k8s.apps.v1.Deployment(
            NAME,
            metadata=described,
            spec={
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": selector(NAME)},
                "template": {"metadata": shared, "spec": pod_spec(pod)},
            },
            opts=opts,
        )


def _half(memory: str) -> int:
    """Return half of an amount of memory (`16Gi`) in bytes."""
    return int(memory.removesuffix("Gi")) << 29


def _access(address: str, port: int, peers: Sequence[Mapping[str, Any]]) -> SparkAccess:
    variables = [{"name": "SPARK_REMOTE", "value": address}]
    return SparkAccess(variables, [{"to": list(peers), "ports": [{"protocol": "TCP", "port": port}]}])
