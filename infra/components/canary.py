"""Canary analysis: the AnalysisTemplate that checks a canary during the traffic steps of its rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as k8s

from infra.components.labels import metadata, selector
from infra.components.pod import PodArgs, pod_spec, secret_variable
from infra.components.serving import PORT, SERVICE_PORT, ServingContext
from pipelines.declarations.canary_settings import (
    AUTHORIZATION_VARIABLE,
    SECONDS_VARIABLE,
    SETTINGS_VARIABLE,
    CanaryBounds,
    CanarySettings,
)
from pipelines.declarations.digests import Digest
from pipelines.declarations.model import Resources
from pipelines.declarations.names import check_name, service_name
from pipelines.declarations.shadow_traffic import SHADOW_PERCENT

_RESOURCES = Resources(cpu="250m", memory="256Mi")
_ALLOWANCE_SECONDS = 900
"""Time for a check in addition to that of its step: until its pod runs, and for the golden requests."""

_TRIES = 3
_KEEP_SECONDS = 3600
_HASHES = (
    {"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
    {"name": "live-hash", "valueFrom": {"podTemplateHashValue": "Stable"}},
)
_SHADOW = "shadow-percent"
_INCONCLUSIVE, _FAILED = 2, 3
"""Exit statuses of the check. Any other failure means that it could not be completed, and it is tried again."""

_BEACON_PORT = {"name": "beacon", "containerPort": PORT, "protocol": "TCP"}
_BEACON_VARIABLES = (
    {"name": SHADOW_PERCENT, "value": f"{{{{args.{_SHADOW}}}}}"},
    {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    {"name": "PORT", "value": str(PORT)},
)


@dataclass(frozen=True, kw_only=True)
class CanaryCheckArgs:
    """Arguments of `CanaryCheck`.

    Attributes:
        context: the settings that the endpoint and the check share.
    """

    context: ServingContext


def analysis_step(
    model: str, bundle: Digest, seconds: int, *, by_release: bool = False, shadow_percent: int = 0
) -> dict[str, Any]:
    """Return the rollout step that checks the canary.

    Args:
        model: name of the model.
        bundle: digest of the bundle on trial.
        seconds: duration of the check.
        by_release: True to name the pods of both releases, which a Prometheus tells apart.
        shadow_percent: share of the requests to copy to the canary; 0 in a traffic step.
    """
    shadow = [{"name": _SHADOW, "value": str(shadow_percent)}] if shadow_percent else []
    return {
        "analysis": {
            "templates": [{"templateName": check_name(model)}],
            "args": [
                {"name": "bundle", "value": bundle},
                {"name": "seconds", "value": str(seconds)},
                # The Service of the live pods, ping or pong; the other one selects those on trial. Argo Rollouts fills
                # it in when the step begins.
                {"name": "live", "valueFrom": {"fieldRef": {"fieldPath": "status.canary.stablePingPong"}}},
                *(_HASHES if by_release else ()),
                *shadow,
            ],
        }
    }


class CanaryCheck(pulumi.ComponentResource):
    """The AnalysisTemplate that a rollout runs during each of its traffic steps.

    Argo Rollouts knows two results of a Job, and a check has three outcomes. So two Jobs run the same check. One fails
    if the canary is bad, which aborts the rollout. The other fails if there is no verdict, which pauses it: a metric
    that has reached its count, but neither its number of successes nor that of failures, is inconclusive.
    """

    def __init__(self, model: str, args: CanaryCheckArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:serving:CanaryCheck", model, None, opts)
        self._model, self._context = model, args.context
        context = args.context
        hashes = (
            [{"name": item["name"]} for item in _HASHES] if context.environment.config.monitoring.prometheus else []
        )
        # Traffic steps do not give this one.
        shadow = [{"name": _SHADOW, "value": "0"}] if context.model.serving.shadow is not None else []
        child = pulumi.ResourceOptions(parent=self)
        name = check_name(model)
        self._shared = metadata(context.environment, name, context.model)
        if shadow:
            self._beacon(child)
        # No count, which means one: Argo refuses a count below the sum of the limits.
        verdict = {"consecutiveSuccessLimit": 1, "failureLimit": 1}
        k8s.apiextensions.CustomResource(
            name,
            api_version="argoproj.io/v1alpha1",
            kind="AnalysisTemplate",
            metadata={"name": name, "namespace": context.namespace, **self._shared},
            spec={
                "args": [{"name": "bundle"}, {"name": "live"}, {"name": "seconds"}, *hashes, *shadow],
                "metrics": [
                    {"name": "harm", "provider": self._job_provider("failed", _FAILED)},
                    {"name": "verdict", **verdict, "provider": self._job_provider("inconclusive", _INCONCLUSIVE)},
                ],
            },
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[context.identity])),
        )
        self.register_outputs({})

    def _beacon(self, opts: pulumi.ResourceOptions) -> None:
        """Create the Service by which live pods ask the check where to send copies of requests.

        Most of the time there is no check, so no pod: a connection is refused at once.
        """
        name = service_name(self._model, "shadow")
        annotations = {**self._shared["annotations"], "pulumi.com/skipAwait": "true"}
        k8s.core.v1.Service(
            name,
            metadata={"name": name, "namespace": self._context.namespace, **self._shared, "annotations": annotations},
            spec={
                "type": "ClusterIP",
                "selector": selector(check_name(self._model)),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "beacon", "protocol": "TCP"}],
            },
            opts=opts,
        )

    def _job_provider(self, fail_if: Literal["failed", "inconclusive"], status: int) -> dict[str, Any]:
        """Return the provider of a metric: a job that runs the check.

        Args:
            fail_if: outcome for which the job fails.
            status: exit status of the check with that outcome; the job is not tried again after it.
        """
        model, context = self._model, self._context
        settings = canary_settings(context, fail_if)
        prometheus = settings.prometheus
        hashes = ("--canary-hash", "{{args.canary-hash}}", "--live-hash", "{{args.live-hash}}") if prometheus else ()
        secret = prometheus.authorization if prometheus is not None else None
        has_beacon = context.model.serving.shadow is not None
        pod = PodArgs(
            environment=context.environment,
            name="check",
            service_account=check_name(model),
            image=context.image,
            command=[
                *("python", "-m", "pipelines.serving.check", "--model", model),
                *("--bundle", "{{args.bundle}}", "--live", "{{args.live}}"),
                *hashes,
            ],
            descriptor=context.descriptor,
            resources=_RESOURCES,
            scratch="64Mi",
            # Not arguments: an image that was pinned before a setting existed ignores the variable.
            variables=[
                {"name": SETTINGS_VARIABLE, "value": settings.to_variable()},
                {"name": SECONDS_VARIABLE, "value": "{{args.seconds}}"},
                {"name": "CHECK_PING_URL", "value": context.service_url(service_name(model, "ping"))},
                {"name": "CHECK_PONG_URL", "value": context.service_url(service_name(model, "pong"))},
                # Without the Secret, the check says so and has no verdict.
                *([secret_variable(AUTHORIZATION_VARIABLE, secret)] if secret is not None else ()),
                *(_BEACON_VARIABLES if has_beacon else ()),
            ],
            container={"ports": [_BEACON_PORT]} if has_beacon else {},
            pod={"restartPolicy": "Never"},
        )
        final = {
            "action": "FailJob",
            "onExitCodes": {"containerName": pod.name, "operator": "In", "values": [status]},
        }
        longest = max(context.model.serving.check_seconds, default=0)
        spec = {
            "backoffLimit": _TRIES - 1,
            "podFailurePolicy": {"rules": [final]},
            "activeDeadlineSeconds": longest + settings.wait_seconds + _ALLOWANCE_SECONDS,
            "ttlSecondsAfterFinished": _KEEP_SECONDS,
            "template": {"metadata": self._shared, "spec": pod_spec(pod)},
        }
        return {"job": {"metadata": self._shared, "spec": spec}}


def canary_settings(context: ServingContext, fail_if: Literal["failed", "inconclusive"]) -> CanarySettings:
    """Return the settings of a check: what the model declares, and what the environment does without a verdict."""
    model, pauses = context.model, context.environment.config.canary.on_inconclusive == "pause"
    policy = model.serving.canary
    return CanarySettings(
        fail_if=fail_if,
        golden_only=fail_if == "inconclusive" and not pauses,
        wait_seconds=policy.wait_seconds if pauses else 0,
        bounds=CanaryBounds(
            error_rate=model.gates.soak.maximum_error_rate,
            p99_ms=model.gates.latency.p99_ms,
            error_increase=policy.error_increase,
            prediction_shift=policy.prediction_shift,
            prediction_distance=policy.prediction_distance,
        ),
        prometheus=context.environment.config.monitoring.prometheus,
    )
