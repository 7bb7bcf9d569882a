"""Workers of a Spark server: pods that Sail starts by the cluster's API, and what they and it may do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import Statements
from infra.components.labels import labels, metadata, selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.workload import Workload, WorkloadArgs
from infra.scopes import Environment
from pipelines.declarations.environment import SparkSettings
from pipelines.declarations.model import Resources
from pipelines.declarations.spark_jobs import SPARK_SERVER, SPARK_WORKER, SPARK_WORKLOADS, START_WORKERS

DRIVER_PORT = 50052
"""Port of the server for its workers."""

WORKER_PORT = 50053
"""Port of a worker for the server and for other workers."""

WORKER_LABELS = {**selector(SPARK_WORKLOADS[SPARK_WORKER]), "app.kubernetes.io/component": "worker"}
"""Labels that Sail gives its workers, whatever their template says."""

_TIMES = 2
"""Times the workers that a job may have: while it is tried again, those of its former session may still run, and a
table whose columns have changed their types has twice as many parts, which Sail runs at once or not at all."""

_TASKS_PER_CORE = 2
"""Tasks that a worker runs at the same time: while one computes, another reads."""

_LOST_AFTER_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class SparkWorkersArgs:
    """Arguments of `SparkWorkers`.

    Attributes:
        environment: the environment of the server.
        namespace: the Kubernetes namespace of the server, where nothing else runs.
        statements: statements of the workers' role.
        clients: number of jobs that may use the server at the same time.
    """

    environment: Environment
    namespace: pulumi.Input[str]
    statements: Statements
    clients: int


class SparkWorkers(pulumi.ComponentResource):
    """The identity of a server's workers, its right to start them, and the limit of what they use together."""

    def __init__(self, name: str, args: SparkWorkersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:data:SparkWorkers", name, None, opts)
        environment, child = args.environment, pulumi.ResourceOptions(parent=self)
        server = {"podSelector": {"matchLabels": selector(SPARK_SERVER)}}
        workers = {"podSelector": {"matchLabels": WORKER_LABELS}}
        Workload(
            name,
            WorkloadArgs(
                environment=environment,
                namespace=args.namespace,
                namespace_name=environment.config.spark_namespace,
                statements=args.statements,
                ingress=[{"from": [server, workers], "ports": [_port(WORKER_PORT)]}],
                egress=[
                    {"to": [server], "ports": [_port(DRIVER_PORT)]},
                    {"to": [workers], "ports": [_port(WORKER_PORT)]},
                ],
                pod_labels=WORKER_LABELS,
            ),
            child,
        )
        described = {"name": name, "namespace": args.namespace, **metadata(environment, name, None)}
        start = {"apiGroups": [""], "resources": ["pods"], "verbs": list(START_WORKERS)}
        role = k8s.rbac.v1.Role(name, metadata=described, rules=[start], opts=child)
        k8s.rbac.v1.RoleBinding(
            name,
            metadata=described,
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role.metadata["name"]},
            subjects=[{"kind": "ServiceAccount", "name": SPARK_SERVER, "namespace": args.namespace}],
            opts=child,
        )
        k8s.core.v1.ResourceQuota(
            name, metadata=described, spec={"hard": _quota(environment.config.spark, args.clients)}, opts=child
        )
        self.register_outputs({})


def _quota(settings: SparkSettings, clients: int) -> dict[str, str]:
    """Return what all pods of the namespace may use together: the server, and the workers of each job."""
    pods = 1 + settings.workers * clients * _TIMES
    cpu, memory = str(int(settings.cpu) * pods), f"{int(settings.memory.removesuffix('Gi')) * pods}Gi"
    return {
        "pods": str(pods),
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "requests.memory": memory,
        "limits.memory": memory,
    }


def worker_settings(environment: Environment, image: str) -> list[dict[str, Any]]:
    """Return the variables of a server that lets workers do its work (`EnvVar`)."""
    settings = environment.config.spark
    cores = int(settings.cpu)
    values = {
        "SAIL_MODE": "kubernetes-cluster",
        "SAIL_CLUSTER__DRIVER_LISTEN_PORT": str(DRIVER_PORT),
        "SAIL_CLUSTER__WORKER_INITIAL_COUNT": str(settings.workers),
        "SAIL_CLUSTER__WORKER_MAX_COUNT": str(settings.workers * _TIMES),
        "SAIL_CLUSTER__WORKER_TASK_SLOTS": str(cores * _TASKS_PER_CORE),
        "SAIL_CLUSTER__WORKER_HEARTBEAT_TIMEOUT_SECS": str(_LOST_AFTER_SECONDS),
        # A task for each place: Sail fills one worker before it uses the next.
        "SAIL_EXECUTION__DEFAULT_PARALLELISM": str(settings.workers * cores * _TASKS_PER_CORE),
        "SAIL_KUBERNETES__IMAGE": image,
        "SAIL_KUBERNETES__NAMESPACE": environment.config.spark_namespace,
        "SAIL_KUBERNETES__WORKER_POD_NAME_PREFIX": f"{SPARK_WORKER}-",
        "SAIL_KUBERNETES__WORKER_SERVICE_ACCOUNT_NAME": SPARK_WORKER,
        "SAIL_KUBERNETES__WORKER_POD_TEMPLATE": json.dumps(worker_template(environment, image)),
    }
    fields = {
        "SAIL_CLUSTER__DRIVER_LISTEN_HOST": "status.podIP",
        "SAIL_CLUSTER__DRIVER_EXTERNAL_HOST": "status.podIP",
        "SAIL_KUBERNETES__DRIVER_POD_NAME": "metadata.name",
    }
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
    ]


def worker_template(environment: Environment, image: str) -> dict[str, Any]:
    """Return the pod template of workers, which Sail completes by the variables that name the server."""
    settings = environment.config.spark
    pod = PodArgs(
        environment=environment,
        name="worker",
        service_account=SPARK_WORKER,
        image=image,
        command=["python", "-m", "pipelines.data.sail_process"],  # Sail adds the argument `worker`
        descriptor=None,
        resources=Resources(cpu=settings.cpu, memory=settings.memory),
        scratch=settings.scratch,
        variables=[
            {"name": "SAIL_CLUSTER__WORKER_LISTEN_PORT", "value": str(WORKER_PORT)},
            *memory_settings(settings),
        ],
        container={"ports": [{"name": "worker", "containerPort": WORKER_PORT}]},
        pod={"topologySpreadConstraints": _spread()},
    )
    return {"metadata": {"labels": labels(environment, SPARK_WORKER, None)}, "spec": pod_spec(pod)}


def memory_settings(settings: SparkSettings) -> list[dict[str, Any]]:
    """Return the variables that limit the memory of queries (`EnvVar`).

    Beyond it, queries write to the scratch volume. The rest is for Python code and for buffers.
    """
    half = int(settings.memory.removesuffix("Gi")) << 29
    return [
        {"name": "SAIL_RUNTIME__MEMORY_POOL__TYPE", "value": "fair"},
        {"name": "SAIL_RUNTIME__MEMORY_POOL__FAIR__MAX_SIZE", "value": str(half)},
    ]


def _spread() -> Sequence[dict[str, Any]]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": WORKER_LABELS},
        }
    ]


def _port(number: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": number}
