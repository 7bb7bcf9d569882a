"""Canary analysis: the AnalysisTemplate that checks a canary between the traffic steps of its rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.labels import metadata
from infra.components.pod import PodArgs, pod_spec
from infra.components.serving import ServingContext
from pipelines.declarations.digests import Digest
from pipelines.declarations.model import Resources
from pipelines.declarations.names import check_name, service_name

_RESOURCES = Resources(cpu="250m", memory="256Mi")
_DEADLINE_SECONDS = 180
_TRIES = 3
_KEEP_SECONDS = 3600
_FAILED = 1
"""Exit status of the check when the canary is wrong. Any other failure means that the check could not be completed."""


@dataclass(frozen=True, kw_only=True)
class CanaryCheckArgs:
    """Arguments of `CanaryCheck`.

    Attributes:
        context: the settings that the endpoint and the check share.
    """

    context: ServingContext


def analysis_step(model: str, bundle: Digest) -> dict[str, Any]:
    """Return the rollout step that checks the canary."""
    return {
        "analysis": {
            "templates": [{"templateName": check_name(model)}],
            "args": [
                {"name": "bundle", "value": bundle},
                # The Service of the live pods, ping or pong; the other one selects those on trial. Argo Rollouts fills
                # it in when the step begins.
                {"name": "live", "valueFrom": {"fieldRef": {"fieldPath": "status.canary.stablePingPong"}}},
            ],
        }
    }


class CanaryCheck(pulumi.ComponentResource):
    """The AnalysisTemplate that a rollout runs between its traffic steps."""

    def __init__(self, model: str, args: CanaryCheckArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:serving:CanaryCheck", model, None, opts)
        context, environment = args.context, args.context.environment
        child = pulumi.ResourceOptions(parent=self)
        name = check_name(model)
        pod = PodArgs(
            environment=environment,
            name="check",
            service_account=name,
            image=context.image,
            command=[
                *("python", "-m", "pipelines.serving.check", "--model", model),
                *("--bundle", "{{args.bundle}}", "--live", "{{args.live}}"),
            ],
            descriptor=context.descriptor,
            resources=_RESOURCES,
            scratch="64Mi",
            variables=[
                {"name": "CHECK_PING_URL", "value": context.service_url(service_name(model, "ping"))},
                {"name": "CHECK_PONG_URL", "value": context.service_url(service_name(model, "pong"))},
            ],
            pod={"restartPolicy": "Never"},
        )
        shared = metadata(environment, name, context.model)
        k8s.apiextensions.CustomResource(
            name,
            api_version="argoproj.io/v1alpha1",
            kind="AnalysisTemplate",
            metadata={"name": name, "namespace": context.namespace, **shared},
            spec={
                "args": [{"name": "bundle"}, {"name": "live"}],
                "metrics": [{"name": "answers", "provider": {"job": {"metadata": shared, "spec": _job(pod, shared)}}}],
            },
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[context.identity])),
        )
        self.register_outputs({})


def _job(pod: PodArgs, shared: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return the spec of the check's job, which fails at once if the canary is wrong and is retried otherwise."""
    fail_at_once = {
        "action": "FailJob",
        "onExitCodes": {"containerName": pod.name, "operator": "In", "values": [_FAILED]},
    }
    return {
        "backoffLimit": _TRIES - 1,
        "podFailurePolicy": {"rules": [fail_at_once]},
        "activeDeadlineSeconds": _DEADLINE_SECONDS,
        "ttlSecondsAfterFinished": _KEEP_SECONDS,
        "template": {"metadata": shared, "spec": pod_spec(pod)},
    }
