"""The endpoint of a model: an Argo Rollout that shifts traffic to each release in steps, behind an internal ALB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.canary import CanaryCheck, CanaryCheckArgs, analysis_step, check_workload
from infra.components.grants import Statements, read_prefix, write_prefix
from infra.components.labels import labels, owner_annotations, selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.serving import PORT, SERVICE_PORT, ServingContext
from infra.components.workload import Workload, WorkloadArgs
from pipelines.declarations.digests import Digest
from pipelines.declarations.model import RolloutStep
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER, service_name

_LIVE, _READY = "/v2/health/live", "/v2/health/ready"  # Open Inference Protocol v2
_BUSY_PERCENT = 70
_STANDBY_SECONDS = 600

# The load balancer learns that a pod ends, and stops sending to it, before the pod stops accepting connections. Then
# the pod finishes the requests in flight.
_DEREGISTRATION_SECONDS = 10
_GRACE_SECONDS = 40


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
        self._workload = f"serve-{model}"
        self._stable, self._canary = service_name(model, "stable"), service_name(model, "canary")
        self._child = pulumi.ResourceOptions(parent=self)

        identity = self._identity()
        services = [self._service(name) for name in (self._stable, self._canary)]
        check = CanaryCheck(model, CanaryCheckArgs(context=args.context, serving_workload=self._workload), self._child)
        # Not dependent on each other: the ingress becomes ready once pods answer, and the rollout needs the ingress
        # to shift traffic.
        ingress = self._ingress(services)
        rollout = self._rollout([identity, check, *services])
        self._autoscaler(rollout)
        self._disruption_budget()
        self.url: pulumi.Output[str | None] = ingress.status.apply(url_of)
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

    def _identity(self) -> Workload:
        context = self._context
        # An ALB with IP targets connects from its own addresses in its subnets.
        load_balancers = [{"ipBlock": {"cidr": cidr}} for cidr in context.environment.config.load_balancer_cidrs]
        check = {"podSelector": {"matchLabels": selector(check_workload(self._model))}}
        return Workload(
            self._workload,
            WorkloadArgs(
                environment=context.environment,
                namespace=context.namespace,
                statements=_statements(context),
                model=context.model,
                ingress=[{"from": [*load_balancers, check], "ports": [{"protocol": "TCP", "port": PORT}]}],
            ),
            self._child,
        )

    def _service(self, name: str) -> k8s.core.v1.Service:
        return k8s.core.v1.Service(
            name,
            # The rollout creates the pods, and needs the service first: do not wait for pods here.
            metadata=self._metadata(name, **{"pulumi.com/skipAwait": "true"}),
            spec={
                "type": "ClusterIP",
                "selector": selector(self._workload),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
            # Argo Rollouts adds the release to the selector.
            opts=self._options(ignore_changes=["spec.selector"]),
        )

    def _ingress(self, services: list[k8s.core.v1.Service]) -> k8s.networking.v1.Ingress:
        """Create the Ingress, which names the stable service with the port `use-annotation`.

        Argo Rollouts writes the annotation that splits traffic between the two services. Source: Argo Rollouts, "AWS
        Load Balancer Controller".
        """
        context = self._context
        tags = context.environment.tags(context.model)
        backend = {"service": {"name": self._stable, "port": {"name": "use-annotation"}}}
        options = {
            "scheme": "internal",
            "target-type": "ip",
            "listen-ports": f'[{{"HTTP": {SERVICE_PORT}}}]',
            "healthcheck-path": _READY,
            "load-balancer-attributes": "routing.http.drop_invalid_header_fields.enabled=true",
            "target-group-attributes": f"deregistration_delay.timeout_seconds={_DEREGISTRATION_SECONDS}",
            "tags": ",".join(f"{key}={value.replace(',', ' ')}" for key, value in tags.items()),
        }
        return k8s.networking.v1.Ingress(
            self._model,
            metadata=self._metadata(
                self._model, **{f"alb.ingress.kubernetes.io/{key}": value for key, value in options.items()}
            ),
            spec={
                "ingressClassName": context.environment.config.ingress_class,
                "rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            },
            # Argo Rollouts writes the weights, and the list of annotations that it manages. Its name depends on the
            # version.
            opts=self._options(
                depends_on=services,
                ignore_changes=[
                    f'metadata.annotations["alb.ingress.kubernetes.io/actions.{self._stable}"]',
                    *(
                        f'metadata.annotations["rollouts.argoproj.io/managed-alb-{managed}"]'
                        for managed in ("actions", "annotations")
                    ),
                ],
            ),
        )

    def _rollout(self, after: list[pulumi.Resource]) -> k8s.apiextensions.CustomResource:
        context, bundle = self._context, self._bundle
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
                "progressDeadlineSeconds": 600,
                "progressDeadlineAbort": True,
                "rollbackWindow": {"revisions": 1},  # roll back to the previous release without traffic steps
                "selector": {"matchLabels": selector(self._workload)},
                "template": {
                    "metadata": {"labels": pod_labels, "annotations": pod_annotations},
                    "spec": pod_spec(self._pod()),
                },
                "strategy": {
                    "canary": {
                        "stableService": self._stable,
                        "canaryService": self._canary,
                        "trafficRouting": {"alb": {"ingress": self._model, "servicePort": SERVICE_PORT}},
                        "maxSurge": "100%",
                        "maxUnavailable": 0,
                        # The previous release stays up for a while, so a rollback needs no new pods.
                        "scaleDownDelaySeconds": _STANDBY_SECONDS,
                        "steps": steps_of(serving.rollout, analysis_step(self._model, bundle)),
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
            ],
            container={
                "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
                "startupProbe": _probe(_READY, period=1, failures=120),
                "readinessProbe": _probe(_READY, period=2, failures=3),
                "livenessProbe": _probe(_LIVE, period=10, failures=3),
                "lifecycle": {"preStop": {"sleep": {"seconds": _DEREGISTRATION_SECONDS}}},
            },
            pod={
                "terminationGracePeriodSeconds": _GRACE_SECONDS,
                "topologySpreadConstraints": [
                    self._spread("topology.kubernetes.io/zone"),
                    self._spread("kubernetes.io/hostname"),
                ],
            },
        )

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
        replicas = self._context.model.serving.replicas
        k8s.autoscaling.v2.HorizontalPodAutoscaler(
            self._model,
            metadata=self._metadata(self._model),
            spec={
                "scaleTargetRef": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": self._model},
                "minReplicas": replicas.minimum,
                "maxReplicas": replicas.maximum,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": _BUSY_PERCENT},
                        },
                    }
                ],
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


def _statements(context: ServingContext) -> Statements:
    model = context.model.name
    return [
        *read_prefix(context.registry.bucket, f"bundles/{model}/", f"evidence/{model}/"),
        *write_prefix(context.storage.logs, f"inference/{model}/"),
    ]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def steps_of(rollout: tuple[RolloutStep, ...], analysis: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of an Argo Rollout: each weight is followed by its pause and by the canary analysis.

    A pause without a duration would wait for a person, so a pause of zero seconds is left out.

    Args:
        rollout: weights and pauses.
        analysis: the step that checks the canary.
    """
    steps: list[dict[str, Any]] = []
    for step in rollout:
        steps.append({"setWeight": step.weight})
        if step.pause_seconds:
            steps.append({"pause": {"duration": f"{step.pause_seconds}s"}})
        steps.append(analysis)
    return steps


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
