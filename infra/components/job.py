"""A job as every job here is: a CronJob, suspended unless it has a schedule, of which a run is made on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.labels import labels, ownership
from infra.components.pod import PodArgs, pod_spec
from infra.environment import Environment
from pipelines.declarations.model import Model

_NEVER_OF_ITSELF = "0 0 1 1 *"  # a suspended CronJob needs a schedule all the same
_KEPT_SECONDS = 86_400


@dataclass(frozen=True)
class JobArgs:
    """What tells one job from another.

    Attributes:
        pod: what runs.
        namespace: where.
        deadline_seconds: a run that takes longer is ended.
        schedule: cron expression in UTC; None: only on request.
        model: the model it works for; None where it works for all.
    """

    pod: PodArgs
    namespace: pulumi.Input[str]
    deadline_seconds: int
    schedule: str | None = None
    model: Model | None = None


def carried_by(workload: str, environment: Environment, model: Model | None) -> dict[str, Any]:
    """The labels and annotations of a job and its pods."""
    return {"labels": labels(environment, workload, model), "annotations": ownership(environment, model)}


def cron_job(name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> k8s.batch.v1.CronJob:
    """The CronJob of a job."""
    carried = carried_by(name, args.pod.environment, args.model)
    return k8s.batch.v1.CronJob(
        name,
        metadata={"name": name, "namespace": args.namespace, **carried},
        spec={
            "schedule": args.schedule or _NEVER_OF_ITSELF,
            "timeZone": "Etc/UTC",
            "suspend": args.schedule is None,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 300,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": carried,
                "spec": {
                    "backoffLimit": 1,
                    "activeDeadlineSeconds": args.deadline_seconds,
                    "ttlSecondsAfterFinished": _KEPT_SECONDS,
                    "template": {"metadata": carried, "spec": {**pod_spec(args.pod), "restartPolicy": "Never"}},
                },
            },
        },
        opts=opts,
    )
