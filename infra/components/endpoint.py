"""The endpoint of a model: an Argo Rollout that shifts traffic to each release in steps, behind an internal ALB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.canary import CanaryCheck, CanaryCheckArgs, analysis_step
from infra.components.labels import labels, owner_annotations, selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.serving import PORT, SERVICE_PORT, ServingContext
from pipelines.declarations.digests import Digest
from pipelines.declarations.environment import PORT_OF_HTTPS, EndpointAccess
from pipelines.declarations.inference_logging import LOG_POLICY
from pipelines.declarations.model import IN_FLIGHT_METRIC, Serving
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER, service_name, serving_name
from pipelines.declarations.shadow_traffic import SHADOW_PEERS, ShadowPeers

_PROTOCOL = "/v2"
"""Path prefix of the Open Inference Protocol."""

_LIVE, _READY = f"{_PROTOCOL}/health/live", f"{_PROTOCOL}/health/ready"
_BUSY_PERCENT = 70
PROGRESS_SECONDS = 600
"""Time that new pods have to become ready before the controller aborts their rollout."""

_STANDBY_SECONDS = 600

# A pod that ends keeps serving until the load balancer has stopped sending to it: its controller deregisters the pod
# within a few seconds, and the load balancer finishes the requests in flight within the deregistration delay. Only then
# is the server asked to stop.
_CONTROLLER_SECONDS = 10
_DEREGISTRATION_SECONDS = 15
_PRE_STOP_SECONDS = _CONTROLLER_SECONDS + _DEREGISTRATION_SECONDS
_GRACE_SECONDS = _PRE_STOP_SECONDS + 30

# A target is healthy after two checks: 10 s with these settings, and 75 s with AWS's own. A pod becomes ready, and a
# canary gets traffic, only then.
_HEALTH_CHECK = {
    "healthcheck-interval-seconds": "5",
    "healthcheck-timeout-seconds": "4",
    "healthy-threshold-count": "2",
    "unhealthy-threshold-count": "2",
}


@dataclass(frozen=True, kw_only=True)
class EndpointArgs:
    """Arguments of `Endpoint`.

    Attributes:
        context: the settings that the endpoint and its canary check share.
        bundle: digest of the bundle to serve.
    """

    context: ServingContext
    bundle: Digest


class Endpoint(pulumi.ComponentResource):
    """The endpoint of a model.

    Attributes:
        url: the endpoint's URL; None until the load balancer has an address.
    """

    def __init__(self, model: str, args: EndpointArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:serving:Endpoint", model, None, opts)
        self._model, self._context, self._bundle = model, args.context, args.bundle
        self._workload = serving_name(model)
        self._root = service_name(model, "root")
        self._ping, self._pong = service_name(model, "ping"), service_name(model, "pong")
        self._child = pulumi.ResourceOptions(parent=self)

        # Argo Rollouts adds the release to the selectors of these two.
        taking_turns = self._options(ignore_changes=["spec.selector"])
        services = [
            self._service(self._root, self._child),
            *(self._service(name, taking_turns) for name in (self._ping, self._pong)),
        ]
        check = CanaryCheck(model, CanaryCheckArgs(context=args.context), self._child)
        # Not dependent on each other: the ingress becomes ready once pods answer, and the rollout needs the ingress
        # to shift traffic.
        ingress = self._ingress(services)
        rollout = self._rollout([args.context.identity, check, *services])
        self._autoscaler(rollout)
        self._disruption_budget()
        self.url: pulumi.Output[str | None] = ingress.status.apply(self._url)
        self.register_outputs({"url": self.url})

    def _metadata(self, name: str, **more: str) -> dict[str, Any]:
        context = self._context
        return {
            "name": name,
            "namespace": context.namespace,
            "labels": labels(context.environment, self._workload, context.model),
            "annotations": {**owner_annotations(context.environment, context.model), **more},
        }

    def _options(self, **more: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(**more))

    def _service(self, name: str, opts: pulumi.ResourceOptions) -> k8s.core.v1.Service:
        return k8s.core.v1.Service(
            name,
            # The rollout creates the pods, and needs the service first: do not wait for pods here.
            metadata=self._metadata(name, **{"pulumi.com/skipAwait": "true"}),
            spec={
                "type": "ClusterIP",
                "selector": selector(self._workload),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
            opts=opts,
        )

    def _ingress(self, services: list[k8s.core.v1.Service]) -> k8s.networking.v1.Ingress:
        """Create the Ingress, which names the root service with the port `use-annotation`.

        Argo Rollouts writes the annotation that splits traffic between the other two services. Source: Argo Rollouts,
        "AWS Load Balancer Controller".
        """
        environment, access = self._context.environment, self._context.environment.config.endpoints
        # Tags of one load balancer must agree, whichever Ingress declares them.
        tags = environment.tags(None if access.shared_load_balancer else self._context.model)
        backend = {"service": {"name": self._root, "port": {"name": "use-annotation"}}}
        options = {
            "scheme": "internal",
            "target-type": "ip",
            **_listener(access),
            "healthcheck-path": _READY,
            **_HEALTH_CHECK,
            "load-balancer-attributes": "routing.http.drop_invalid_header_fields.enabled=true",
            "target-group-attributes": f"deregistration_delay.timeout_seconds={_DEREGISTRATION_SECONDS}",
            "tags": ",".join(f"{key}={value.replace(',', ' ')}" for key, value in tags.items()),
        }
        if access.shared_load_balancer:
            options["group.name"] = environment.prefix
        rule: dict[str, Any] = {"http": {"paths": [{"path": self._path(), "pathType": "Prefix", "backend": backend}]}}
        if access.domain:
            rule["host"] = f"{self._model}.{access.domain}"
        return k8s.networking.v1.Ingress(
            self._model,
            metadata=self._metadata(
                self._model, **{f"alb.ingress.kubernetes.io/{key}": value for key, value in options.items()}
            ),
            spec={"ingressClassName": environment.config.ingress_class, "rules": [rule]},
            # Argo Rollouts writes the weights, and the list of annotations that it manages. Its name depends on the
            # version.
            opts=self._options(
                depends_on=services,
                ignore_changes=[
                    f'metadata.annotations["alb.ingress.kubernetes.io/actions.{self._root}"]',
                    *(
                        f'metadata.annotations["rollouts.argoproj.io/managed-alb-{managed}"]'
                        for managed in ("actions", "annotations")
                    ),
                ],
            ),
        )

    def _path(self) -> str:
        """Return the path that leads to the endpoint: a shared load balancer without host names needs the model's.

        Never to `/metrics`: from one sum of predictions to the next, a caller would learn what others are answered.
        """
        access = self._context.environment.config.endpoints
        return f"{_PROTOCOL}/models/{self._model}" if access.shared_load_balancer and not access.domain else _PROTOCOL

    def _url(self, status: Any) -> str | None:
        """Return the URL of the endpoint, or None if its load balancer has no address yet."""
        access, url = self._context.environment.config.endpoints, url_of(status)
        if url is None or access.domain is None:
            return url
        return f"{'https' if access.certificate else 'http'}://{self._model}.{access.domain}"

    def _rollout(self, after: list[pulumi.Input[pulumi.Resource]]) -> k8s.apiextensions.CustomResource:
        context, bundle = self._context, self._bundle
        by_release = context.environment.config.monitoring.prometheus is not None
        serving = context.model.serving
        pod_labels = labels(context.environment, self._workload, context.model)
        # A label holds 63 characters; a SHA-256 digest has 64.
        pod_labels["mlops/bundle"] = bundle.removeprefix("sha256:")[:16]
        pod_annotations = {**owner_annotations(context.environment, context.model), "mlops/bundle": bundle}
        return k8s.apiextensions.CustomResource(
            self._model,
            api_version="argoproj.io/v1alpha1",
            kind="Rollout",
            # Pulumi's provider fails while it waits for a Rollout that is deleted in the foreground: it cannot read its
            # status, in which Argo's `observedGeneration` is text.
            # A rollback changes the Rollout under the same field manager, so the next `up` finds no conflict.
            metadata=self._metadata(
                self._model,
                **{
                    "mlops/bundle": bundle,
                    "pulumi.com/deletionPropagationPolicy": "background",
                    "pulumi.com/patchFieldManager": ROLLOUT_FIELD_MANAGER,
                },
            ),
            spec={
                "replicas": serving.replicas.minimum,
                "revisionHistoryLimit": 5,
                "progressDeadlineSeconds": PROGRESS_SECONDS,
                "progressDeadlineAbort": True,
                "rollbackWindow": {"revisions": 1},  # roll back to the previous release without traffic steps
                "selector": {"matchLabels": selector(self._workload)},
                "template": {
                    "metadata": {"labels": pod_labels, "annotations": pod_annotations},
                    "spec": pod_spec(self._pod()),
                },
                "strategy": {
                    "canary": {
                        # The Services take turns, so their target groups never change pods: a Service selects the
                        # pods of a release before they are created, and they become ready once their targets are.
                        "pingPong": {"pingService": self._ping, "pongService": self._pong},
                        "trafficRouting": {
                            "alb": {"ingress": self._model, "servicePort": SERVICE_PORT, "rootService": self._root}
                        },
                        "maxSurge": "100%",
                        "maxUnavailable": 0,
                        # The previous release stays up for a while, so a rollback needs no new pods.
                        "scaleDownDelaySeconds": _STANDBY_SECONDS,
                        "steps": steps_of(serving, partial(analysis_step, self._model, bundle, by_release=by_release)),
                    }
                },
            },
            opts=self._options(depends_on=after, ignore_changes=["spec.replicas"]),  # the autoscaler sets replicas
        )

    def _pod(self) -> PodArgs:
        context = self._context
        return PodArgs(
            environment=context.environment,
            name="serve",
            service_account=self._workload,
            image=context.image,
            command=["python", "-m", "pipelines.serving", "--model", self._model, "--bundle", self._bundle],
            descriptor=context.descriptor,
            resources=context.model.serving.resources,
            scratch="1Gi",
            variables=[
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "PORT", "value": str(PORT)},
                {"name": "OMP_NUM_THREADS", "value": "1"},
                {"name": LOG_POLICY, "value": context.log_policy.model_dump_json()},
                *self._shadow_peers(),
            ],
            container={
                "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                "startupProbe": _probe(_READY, period=1, failures=120),
                "readinessProbe": _probe(_READY, period=2, failures=3),
                "livenessProbe": _probe(_LIVE, period=10, failures=3),
                "lifecycle": {"preStop": {"sleep": {"seconds": _PRE_STOP_SECONDS}}},
            },
            pod={
                "terminationGracePeriodSeconds": _GRACE_SECONDS,
                "topologySpreadConstraints": [
                    self._spread("topology.kubernetes.io/zone"),
                    self._spread("kubernetes.io/hostname"),
                ],
            },
        )

    def _shadow_peers(self) -> list[dict[str, Any]]:
        """Return the variable that lets pods copy requests, if the model declares a shadow step."""
        if self._context.model.serving.shadow is None:
            return []
        beacon, ping, pong = (
            self._context.service_url(name) for name in (service_name(self._model, "shadow"), self._ping, self._pong)
        )
        return [{"name": SHADOW_PEERS, "value": ShadowPeers(beacon=beacon, ping=ping, pong=pong).model_dump_json()}]

    def _spread(self, topology: str) -> dict[str, Any]:
        """Spread the pods of each release evenly if possible; if a zone fails, run them anywhere."""
        return {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(self._workload)},
            "matchLabelKeys": ["rollouts-pod-template-hash"],
        }

    def _autoscaler(self, rollout: k8s.apiextensions.CustomResource) -> None:
        """Create the autoscaler, which takes the larger number of pods that its metrics ask for.

        CPU time stays one of them, so the endpoint grows even while nothing serves the other metric.
        """
        replicas = self._context.model.serving.replicas
        utilization = {"type": "Utilization", "averageUtilization": _BUSY_PERCENT}
        metrics: list[dict[str, Any]] = [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}]
        if replicas.concurrency is not None:
            in_flight = {"type": "AverageValue", "averageValue": str(replicas.concurrency)}
            metrics.append({"type": "Pods", "pods": {"metric": {"name": IN_FLIGHT_METRIC}, "target": in_flight}})
        k8s.autoscaling.v2.HorizontalPodAutoscaler(
            self._model,
            metadata=self._metadata(self._model),
            spec={
                "scaleTargetRef": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": self._model},
                "minReplicas": replicas.minimum,
                "maxReplicas": replicas.maximum,
                "metrics": metrics,
            },
            opts=self._options(depends_on=[rollout]),
        )

    def _disruption_budget(self) -> None:
        k8s.policy.v1.PodDisruptionBudget(
            self._model,
            metadata=self._metadata(self._model),
            # One pod at a time suits any number of replicas from two.
            spec={"maxUnavailable": 1, "selector": {"matchLabels": selector(self._workload)}},
            opts=self._child,
        )


def _listener(access: EndpointAccess) -> dict[str, str]:
    """Return the annotations of the load balancer's listener: its port, its certificate, and who may connect."""
    if access.certificate:
        options = {
            "listen-ports": f'[{{"HTTPS": {PORT_OF_HTTPS}}}]',
            "certificate-arn": access.certificate,
            "ssl-policy": access.tls_policy,
        }
    else:
        options = {"listen-ports": f'[{{"HTTP": {SERVICE_PORT}}}]'}
    if access.security_groups:
        options["security-groups"] = ",".join(access.security_groups)
        # Without it, the security groups of the pods would refuse the load balancer.
        options["manage-backend-security-group-rules"] = "true"
    elif access.inbound_cidrs:
        options["inbound-cidrs"] = ",".join(access.inbound_cidrs)
    return options


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def steps_of(serving: Serving, analysis: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of an Argo Rollout: each weight is followed by the canary analysis, which keeps it.

    The analysis lasts as long as the declared pause, so that it can compare what happens during the step, and stop a
    bad canary at once.

    A shadow step comes before any weight. Without a weight there are no pods on trial, so it sets their number: that of
    the first weight, or more if more requests are copied. After the first weight, the number follows the weight again.

    Args:
        serving: what the model declares.
        analysis: returns the step that checks the canary for a number of seconds; takes `shadow_percent` as well.
    """
    steps = [({"setWeight": step.weight}, analysis(step.pause_seconds)) for step in serving.rollout]
    shadow = serving.shadow
    if shadow is None:
        return [part for step in steps for part in step]
    (first_weight, first_check), *later = steps
    return [
        {"setCanaryScale": {"weight": max(shadow.percent, serving.rollout[0].weight)}},
        analysis(shadow.pause_seconds, shadow_percent=shadow.percent),
        first_weight,
        {"setCanaryScale": {"matchTrafficWeight": True}},
        first_check,
        *(part for step in later for part in step),
    ]


def url_of(status: Any) -> str | None:
    """Return the URL in the status of an Ingress, or None if it has no address yet.

    Args:
        status: the `status` of the Ingress, as a plain mapping or as Pulumi's output type.
    """
    balancers = _first(_first(status, "load_balancer", "loadBalancer"), "ingress") or []
    if not balancers:
        return None
    host = _first(balancers[0], "hostname") or _first(balancers[0], "ip")
    ports = [_first(port, "port") for port in _first(balancers[0], "ports") or []]
    port = int(ports[0]) if ports else SERVICE_PORT
    if not host:
        return None
    return f"http://{host}" if port == SERVICE_PORT else f"http://{host}:{port}"


def _first(value: Any, *names: str) -> Any:
    """Return the first of some properties that a mapping has, or None."""
    return next((value[name] for name in names if isinstance(value, dict) and name in value), None)
