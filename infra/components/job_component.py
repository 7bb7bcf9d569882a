"""Jobs: a CronJob and its workload identity. A CronJob without a schedule is suspended and started on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import Statements
from infra.components.labels import metadata
from infra.components.pod import PodArgs, pod_spec, secret_variable
from infra.components.workload import Workload, WorkloadArgs, egress_to
from infra.scopes import Environment
from pipelines.declarations.environment import LineageEndpoint
from pipelines.declarations.model import Model, Resources

_PLACEHOLDER_SCHEDULE = "0 0 1 1 *"  # Kubernetes requires a schedule even if the CronJob is suspended
_KEEP_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The settings that all jobs of an environment share.

    Attributes:
        environment: the environment that the jobs run in.
        namespace: the Kubernetes namespace.
        image: reference of the training image by digest; None if no image is pinned.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    namespace: pulumi.Input[str]
    image: str | None
    descriptor: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class JobArgs:
    """Arguments of `JobComponent`.

    Attributes:
        context: the settings that all jobs share. Without an image, only the identity is created.
        name: name of the CronJob and of its workload.
        container: the container's name.
        command: the container's command.
        statements: statements of the role's policy.
        resources: requests and limits of the container.
        scratch: size of the volume at /tmp (`4Gi`).
        deadline_seconds: seconds after which a run is stopped.
        schedule: cron expression in UTC; None to run on request only.
        model: the model that the job belongs to; None if all models share it.
        final_exit_code: exit code after which a run is not tried again; None to try again after every failure.
        variables: environment variables (`EnvVar`) to add.
        egress: egress rules of the network policy to add.
    """

    context: JobContext
    name: str
    container: str
    command: Sequence[str]
    statements: Statements
    resources: Resources
    scratch: str
    deadline_seconds: int
    schedule: str | None = None
    model: Model | None = None
    final_exit_code: int | None = None
    variables: Sequence[Mapping[str, Any]] = ()
    egress: Sequence[Mapping[str, Any]] = ()


class JobComponent(pulumi.ComponentResource):
    """A CronJob and its workload identity; the base class of the jobs' components."""

    def __init__(self, type_: str, name: str, args: JobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(type_, name, None, opts)
        context, child = args.context, pulumi.ResourceOptions(parent=self)
        lineage = context.environment.config.openlineage
        workload = Workload(
            args.name,
            WorkloadArgs(
                environment=context.environment,
                namespace=context.namespace,
                statements=args.statements,
                model=args.model,
                egress=[*args.egress, *(_lineage_egress(lineage) if lineage is not None else ())],
            ),
            child,
        )
        if context.image is not None:
            pod = PodArgs(
                environment=context.environment,
                name=args.container,
                service_account=workload.name,
                image=context.image,
                command=args.command,
                descriptor=context.descriptor,
                resources=args.resources,
                scratch=args.scratch,
                variables=[*args.variables, *(lineage_variables(lineage) if lineage is not None else ())],
            )
            after_identity = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[workload]))
            _cron_job(args, pod, after_identity)
        self.register_outputs({})


def lineage_variables(lineage: LineageEndpoint) -> list[dict[str, Any]]:
    """Return OpenLineage's standard variables. Without the Secret, the endpoint refuses the events, and jobs go on."""
    variables: list[dict[str, Any]] = [
        {"name": "OPENLINEAGE_URL", "value": lineage.url},
        {"name": "OPENLINEAGE_ENDPOINT", "value": lineage.endpoint},
    ]
    if lineage.api_key is not None:
        variables.append(secret_variable("OPENLINEAGE_API_KEY", lineage.api_key))
    return variables


def _lineage_egress(lineage: LineageEndpoint) -> list[dict[str, Any]]:
    """Return the egress rules to the endpoint; none if it is on the same machine, as on the laptop."""
    return [] if lineage.is_local else egress_to(lineage.url, lineage.pod_port)


def _cron_job(args: JobArgs, pod: PodArgs, opts: pulumi.ResourceOptions) -> k8s.batch.v1.CronJob:
    shared = metadata(args.context.environment, args.name, args.model)
    final: dict[str, Any] = {}
    if args.final_exit_code is not None:
        codes = {"containerName": args.container, "operator": "In", "values": [args.final_exit_code]}
        final = {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": codes}]}}
    return k8s.batch.v1.CronJob(
        args.name,
        metadata={"name": args.name, "namespace": args.context.namespace, **shared},
        spec={
            "schedule": args.schedule or _PLACEHOLDER_SCHEDULE,
            "timeZone": "Etc/UTC",
            "suspend": args.schedule is None,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 300,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": shared,
                "spec": {
                    "backoffLimit": 1,
                    **final,
                    "activeDeadlineSeconds": args.deadline_seconds,
                    "ttlSecondsAfterFinished": _KEEP_SECONDS,
                    "template": {"metadata": shared, "spec": {**pod_spec(pod), "restartPolicy": "Never"}},
                },
            },
        },
        opts=opts,
    )
