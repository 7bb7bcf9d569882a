"""What asks a release on trial between the traffic steps of its rollout, and decides whether it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import read_prefix
from infra.components.identity import Workload, WorkloadArgs
from infra.components.job import carried_by
from infra.components.labels import selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.registry import Registry
from infra.environment import Environment
from pipelines.declarations.digests import Digest
from pipelines.declarations.model import Model, Resources
from pipelines.declarations.names import service_name

_RESOURCES = Resources(cpu="250m", memory="256Mi")
_DEADLINE_SECONDS = 180
_TRIES = 3
_KEPT_SECONDS = 3600
_WRONG = 1
"""The exit status by which the check says that the release is wrong, and not that it could not be asked."""


@dataclass(frozen=True)
class TrialArgs:
    """What is asked, and by what.

    Attributes:
        environment: where it runs.
        model: whose releases are tried.
        port: what its pods listen on.
        registry: where its bundles are.
        namespace: the Kubernetes namespace.
        image: of serving, by digest.
        digest: of the image.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    model: Model
    port: int
    registry: Registry
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    digest: Digest
    descriptor: pulumi.Input[str]


def asker(model: str) -> str:
    """The workload that asks the releases of a model, and the template of its job."""
    return f"check-{model}"


def trial_step(model: str, bundle: Digest) -> dict[str, Any]:
    """The step of a rollout in which a release is asked."""
    return {"analysis": {"templates": [{"templateName": asker(model)}], "args": [{"name": "bundle", "value": bundle}]}}


class Trial(pulumi.ComponentResource):
    """The job that a rollout runs between its traffic steps, as an AnalysisTemplate, and its identity."""

    def __init__(self, model: str, args: TrialArgs, *, parent: pulumi.Resource) -> None:
        super().__init__("mlops:serving:Trial", model, None, pulumi.ResourceOptions(parent=parent))
        environment = args.environment
        workload = Workload(
            asker(model),
            WorkloadArgs(
                environment,
                args.namespace,
                read_prefix(args.registry.bucket, f"bundles/{model}/"),
                model=args.model,
                egress=[
                    {
                        "to": [{"podSelector": {"matchLabels": selector(f"serve-{model}")}}],
                        "ports": [{"protocol": "TCP", "port": args.port}],
                    }
                ],
            ),
            parent=self,
        )
        pod = PodArgs(
            environment,
            name="check",
            service_account=workload.name,
            image=args.image,
            digest=args.digest,
            command=["python", "-m", "pipelines.serving.check", "--model", model, "--bundle", "{{args.bundle}}"],
            descriptor=args.descriptor,
            resources=_RESOURCES,
            scratch="64Mi",
            variables=[
                {
                    "name": "CHECK_CANARY_URL",
                    "value": f"http://{service_name(model, 'canary')}.{environment.config.namespace}.svc",
                }
            ],
            pod={"restartPolicy": "Never"},
        )
        carried = carried_by(workload.name, environment, args.model)
        k8s.apiextensions.CustomResource(
            workload.name,
            api_version="argoproj.io/v1alpha1",
            kind="AnalysisTemplate",
            metadata={"name": workload.name, "namespace": args.namespace, **carried},
            spec={
                "args": [{"name": "bundle"}],
                "metrics": [
                    {
                        "name": "answers",
                        "provider": {
                            "job": {
                                "metadata": carried,
                                "spec": {
                                    # What is wrong is wrong; what could not be asked is asked again.
                                    "backoffLimit": _TRIES - 1,
                                    "podFailurePolicy": {
                                        "rules": [
                                            {
                                                "action": "FailJob",
                                                "onExitCodes": {
                                                    "containerName": pod.name,
                                                    "operator": "In",
                                                    "values": [_WRONG],
                                                },
                                            }
                                        ]
                                    },
                                    "activeDeadlineSeconds": _DEADLINE_SECONDS,
                                    "ttlSecondsAfterFinished": _KEPT_SECONDS,
                                    "template": {"metadata": carried, "spec": pod_spec(pod)},
                                },
                            }
                        },
                    }
                ],
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[workload]),
        )
        self.register_outputs({})
