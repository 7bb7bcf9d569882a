"""What serves a model: a rollout that takes each release live in traffic steps, behind an internal load balancer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from infra.components.grants import Statements, read_prefix, write_prefix
from infra.components.identity import Workload, WorkloadArgs
from infra.components.labels import labels, ownership, selector
from infra.components.pod import PodArgs, pod_spec
from infra.components.registry import Registry
from infra.components.storage import Storage
from infra.components.trial import Trial, TrialArgs, asker, trial_step
from infra.environment import Environment
from pipelines.declarations.digests import Digest
from pipelines.declarations.model import Model, RolloutStep
from pipelines.declarations.names import service_name

PORT = 8080
"""What a serving pod listens on."""

SERVICE_PORT = 80
"""What the load balancer listens on; left out of the URL."""

_LIVE, _READY = "/v2/health/live", "/v2/health/ready"  # Open Inference Protocol v2
_BUSY_PERCENT = 70
_STANDBY_SECONDS = 600

# The load balancer hears of a pod's end and stops sending before the pod stops answering; then requests in flight
# are finished.
_DEREGISTRATION_SECONDS = 10
_GRACE_SECONDS = 40


@dataclass(frozen=True)
class EndpointArgs:
    """What is served.

    Attributes:
        environment: where it runs.
        model: what is served.
        bundle: the release.
        storage: where what was predicted is logged.
        registry: where the bundle is.
        namespace: the Kubernetes namespace.
        image: of serving, by digest.
        digest: of the image.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    model: Model
    bundle: Digest
    storage: Storage
    registry: Registry
    namespace: pulumi.Input[str]
    image: pulumi.Input[str]
    digest: Digest
    descriptor: pulumi.Input[str]


class Endpoint(pulumi.ComponentResource):
    """The endpoint of a model.

    Attributes:
        url: where it answers.
    """

    def __init__(self, model: str, args: EndpointArgs) -> None:
        super().__init__("mlops:serving:Endpoint", model)
        environment = args.environment
        workload = Workload(
            f"serve-{model}",
            WorkloadArgs(
                environment,
                args.namespace,
                _may(args),
                model=args.model,
                # A load balancer with targets by IP sends from its own addresses in its subnets.
                ingress=[
                    {
                        "from": [
                            *({"ipBlock": {"cidr": cidr}} for cidr in environment.config.load_balancer_cidrs),
                            {"podSelector": {"matchLabels": selector(asker(model))}},
                        ],
                        "ports": [{"protocol": "TCP", "port": PORT}],
                    }
                ],
            ),
            parent=self,
        )
        self._args, self._name, self._workload = args, model, workload.name
        self._stable, self._canary = service_name(model, "stable"), service_name(model, "canary")
        services = [self._service(name) for name in (self._stable, self._canary)]
        trial = Trial(
            model,
            TrialArgs(
                environment,
                args.model,
                PORT,
                args.registry,
                args.namespace,
                args.image,
                args.digest,
                args.descriptor,
            ),
            parent=self,
        )
        # Side by side: the ingress is ready when pods answer, and the rollout steps when the ingress is there.
        ingress = self._ingress(services)
        rollout = self._rollout([workload, trial, *services])
        self._autoscaler(rollout)
        self._disruption_budget()
        self.url: pulumi.Output[str | None] = ingress.status.apply(url_of)
        self.register_outputs({"url": self.url})

    def _metadata(self, name: str, **more: str) -> dict[str, Any]:
        args = self._args
        return {
            "name": name,
            "namespace": args.namespace,
            "labels": labels(args.environment, self._workload, args.model),
            "annotations": {**ownership(args.environment, args.model), **more},
        }

    def _service(self, name: str) -> k8s.core.v1.Service:
        return k8s.core.v1.Service(
            name,
            # The pods come with the rollout, which needs the service first: nothing to wait for here.
            metadata=self._metadata(name, **{"pulumi.com/skipAwait": "true"}),
            spec={
                "type": "ClusterIP",
                "selector": selector(self._workload),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
            # Argo Rollouts adds to the selector which release the service means.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["spec.selector"]),
        )

    def _ingress(self, services: list[k8s.core.v1.Service]) -> k8s.networking.v1.Ingress:
        """Source: Argo Rollouts, "AWS Load Balancer Controller": the stable service, with the port `use-annotation`,
        in whose place Argo writes the annotation that weighs the two services."""
        args = self._args
        tags = args.environment.tags(args.model)
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
            self._name,
            metadata=self._metadata(
                self._name, **{f"alb.ingress.kubernetes.io/{key}": value for key, value in options.items()}
            ),
            spec={
                "ingressClassName": args.environment.config.ingress_class,
                "rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            },
            # Argo Rollouts writes the weights there, and which annotations are its own.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=services,
                ignore_changes=[
                    f'metadata.annotations["alb.ingress.kubernetes.io/actions.{self._stable}"]',
                    'metadata.annotations["rollouts.argoproj.io/managed-alb-actions"]',
                ],
            ),
        )

    def _rollout(self, after: list[pulumi.Resource]) -> k8s.apiextensions.CustomResource:
        args, serving = self._args, self._args.model.serving
        pod = PodArgs(
            args.environment,
            name="serve",
            service_account=self._workload,
            image=args.image,
            digest=args.digest,
            command=["python", "-m", "pipelines.serving", "--model", self._name, "--bundle", args.bundle],
            descriptor=args.descriptor,
            resources=serving.resources,
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
        pods = labels(args.environment, self._workload, args.model)
        # A label holds 63 characters, a digest 64 and its algorithm.
        pods["mlops/bundle"] = args.bundle.removeprefix("sha256:")[:16]
        about = {**ownership(args.environment, args.model), "mlops/bundle": args.bundle}
        return k8s.apiextensions.CustomResource(
            self._name,
            api_version="argoproj.io/v1alpha1",
            kind="Rollout",
            metadata=self._metadata(self._name, **{"mlops/bundle": args.bundle}),
            spec={
                "replicas": serving.replicas.minimum,
                "revisionHistoryLimit": 5,
                "progressDeadlineSeconds": 600,
                "progressDeadlineAbort": True,
                "rollbackWindow": {"revisions": 1},  # back to the release before without its traffic steps
                "selector": {"matchLabels": selector(self._workload)},
                "template": {"metadata": {"labels": pods, "annotations": about}, "spec": pod_spec(pod)},
                "strategy": {
                    "canary": {
                        "stableService": self._stable,
                        "canaryService": self._canary,
                        "trafficRouting": {"alb": {"ingress": self._name, "servicePort": SERVICE_PORT}},
                        "maxSurge": "100%",
                        "maxUnavailable": 0,
                        # The release before stays up for a while: back to it in no time.
                        "scaleDownDelaySeconds": _STANDBY_SECONDS,
                        "steps": steps_of(serving.rollout, trial_step(self._name, args.bundle)),
                    }
                },
            },
            # The autoscaler decides how many.
            opts=pulumi.ResourceOptions(parent=self, depends_on=after, ignore_changes=["spec.replicas"]),
        )

    def _spread(self, topology: str) -> dict[str, Any]:
        """Each release on its own spread as evenly as there is room; when a zone fails, running anywhere is better."""
        return {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(self._workload)},
            "matchLabelKeys": ["rollouts-pod-template-hash"],
        }

    def _autoscaler(self, rollout: k8s.apiextensions.CustomResource) -> None:
        replicas = self._args.model.serving.replicas
        k8s.autoscaling.v2.HorizontalPodAutoscaler(
            self._name,
            metadata=self._metadata(self._name),
            spec={
                "scaleTargetRef": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": self._name},
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
            opts=pulumi.ResourceOptions(parent=self, depends_on=[rollout]),
        )

    def _disruption_budget(self) -> None:
        k8s.policy.v1.PodDisruptionBudget(
            self._name,
            metadata=self._metadata(self._name),
            # One at a time: fits any number of replicas from two.
            spec={"maxUnavailable": 1, "selector": {"matchLabels": selector(self._workload)}},
            opts=pulumi.ResourceOptions(parent=self),
        )


def _may(args: EndpointArgs) -> Statements:
    model = args.model.name
    return [
        *read_prefix(args.registry.bucket, f"bundles/{model}/", f"evidence/{model}/"),
        *write_prefix(args.storage.logs, f"inference/{model}/"),
    ]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def steps_of(rollout: tuple[RolloutStep, ...], trial: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of Argo Rollouts: after each weight, and its pause, the release must pass the trial.

    A pause without a duration would wait for a person, so zero seconds is no pause.

    Args:
        rollout: the weights and pauses.
        trial: the step in which the release is asked.
    """
    steps: list[dict[str, Any]] = []
    for step in rollout:
        steps.append({"setWeight": step.weight})
        if step.pause_seconds:
            steps.append({"pause": {"duration": f"{step.pause_seconds}s"}})
        steps.append(trial)
    return steps


def url_of(status: Any) -> str | None:
    """The address in an ingress's status, or None while it has none.

    Args:
        status: `status` of the Ingress.
    """
    balancers = _get(_get(status, "load_balancer", "loadBalancer"), "ingress") or []
    if not balancers:
        return None
    host = _get(balancers[0], "hostname") or _get(balancers[0], "ip")
    ports = [_get(port, "port") for port in _get(balancers[0], "ports") or []]
    port = int(ports[0]) if ports else SERVICE_PORT
    if not host:
        return None
    return f"http://{host}" if port == SERVICE_PORT else f"http://{host}:{port}"


def _get(value: Any, *names: str) -> Any:
    """A property by any of its spellings, of a plain mapping or of an output type (a mapping, too)."""
    return next((value[name] for name in names if isinstance(value, dict) and name in value), None)
