"""Check what the program relies on in a Kubernetes cluster; read-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.declarations.project import Project
from pipelines.targets.checking import check, guarded
from pipelines.targets.target import Finding

if TYPE_CHECKING:
    from lightkube import Client

VERBS = ("get", "create", "patch", "delete")
"""What a deployment does with each kind of object."""

CLUSTER_KINDS = (("", "namespaces"),)
"""Kinds that the program manages in the cluster: API group, resource."""

NAMESPACED_KINDS = (
    ("", "serviceaccounts"),
    ("", "services"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("networking.k8s.io", "networkpolicies"),
    ("networking.k8s.io", "ingresses"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("policy", "poddisruptionbudgets"),
    ("argoproj.io", "rollouts"),
    ("argoproj.io", "analysistemplates"),
)
"""Kinds that the program manages in the namespace of an environment: API group, resource."""

ROLLOUTS_LABELS = {"app.kubernetes.io/name": "argo-rollouts", "app.kubernetes.io/component": "rollouts-controller"}
"""Labels of the Argo Rollouts controller, in its manifests and in its Helm chart."""

LOAD_BALANCER_LABELS = {"app.kubernetes.io/name": "aws-load-balancer-controller"}
"""Labels of the AWS Load Balancer Controller, in its Helm chart and manifests."""

_LOAD_BALANCER = "ingress.k8s.aws/alb"
"""Name by which an ingress class names the AWS Load Balancer Controller."""

_RUN_BY_AWS = "eks.amazonaws.com/"
"""Prefix of the controllers that EKS Auto Mode runs outside the cluster."""

_INSTALL_ROLLOUTS = "install Argo Rollouts with its controller: https://argo-rollouts.readthedocs.io"
_INSTALL_METRICS = "install the Kubernetes Metrics Server; autoscaling needs it"


def check_cluster(project: Project, environments: Sequence[str]) -> Iterator[Finding]:
    """Check the cluster that KUBECONFIG names, for those environments that use it."""
    from pipelines.cluster.connection import connect

    reached = False

    def reach() -> tuple[bool, str]:
        nonlocal reached
        with connect("default") as client:
            _may(client, "", "get", "", "namespaces")
        reached = True
        return True, "answers"

    yield check("Kubernetes cluster", "check KUBECONFIG: mlops ci use-cluster --env <env>", reach)
    if not reached:
        return
    here, finding = _environments_here(project, environments)
    yield finding
    with connect("default") as client:
        yield check("Argo Rollouts: kinds", _INSTALL_ROLLOUTS, lambda: _has_rollouts(client))
        yield check("Argo Rollouts: running", _INSTALL_ROLLOUTS, lambda: _runs(client, ROLLOUTS_LABELS))
        yield check("metrics API", _INSTALL_METRICS, lambda: _serves_metrics(client))
        for environment in here:
            yield from guarded(
                environment, _check_environment(client, project, environment), f"correct Pulumi.{environment}.yaml"
            )


def _check_environment(client: Client, project: Project, environment: str) -> Iterator[Finding]:
    config = project.stack(environment).config.environment
    yield check(
        f"ingress class of {environment}",
        "install the ingress controller: for the class `alb`, the AWS Load Balancer Controller",
        lambda: _ingress_class(client, config.ingress_class),
    )
    yield check(
        f"access for {environment}",
        "give this identity access to the cluster: docs/bootstrap.md, step 6",
        lambda: _access(client, config.namespace),
    )


def _environments_here(project: Project, environments: Sequence[str]) -> tuple[Sequence[str], Finding]:
    """Return the environments whose cluster KUBECONFIG names, and a finding.

    The AWS CLI names a cluster by its ARN. A cluster with another name counts for every environment.
    """
    from lightkube import KubeConfig

    try:
        context = KubeConfig.from_env().get()
        named = context.context.cluster if context is not None else ""
    except Exception:  # a service account in a pod has no kubeconfig
        named = ""
    if ":cluster/" not in named:
        return environments, Finding("KUBECONFIG", True, f"cluster {named or 'of this pod'}, for all environments")
    name = named.rpartition(":cluster/")[2]
    here = tuple(one for one in environments if project.stack(one).config.environment.cluster == name)
    found = f"cluster {name}, of {', '.join(here)}" if here else f"cluster {name}, which no environment names"
    return here, Finding("KUBECONFIG", bool(here), found, "mlops ci use-cluster --env <env>")


def _has_rollouts(client: Client) -> tuple[bool, str]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apiextensions_v1 import CustomResourceDefinition

    missing = []
    for name in ("rollouts.argoproj.io", "analysistemplates.argoproj.io"):
        try:
            client.get(CustomResourceDefinition, name)
        except ApiError as error:
            if error.status.code != 404:
                raise
            missing.append(name)
    return not missing, f"missing: {', '.join(missing)}" if missing else "rollouts and analysistemplates"


def _runs(client: Client, labels: dict[str, str]) -> tuple[bool, str]:
    """Look for an available Deployment with the labels, in any namespace."""
    from lightkube.resources.apps_v1 import Deployment

    found = []
    for deployment in client.list(Deployment, namespace="*", labels={**labels}):
        available = (deployment.status and deployment.status.availableReplicas) or 0
        metadata = deployment.metadata
        name = f"{metadata.namespace}/{metadata.name}" if metadata else "a deployment"
        if available:
            return True, f"{name}: {available} available"
        found.append(name)
    return False, f"{', '.join(found)}: none available" if found else "no such controller"


def _serves_metrics(client: Client) -> tuple[bool, str]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apiregistration_v1 import APIService

    name = "v1beta1.metrics.k8s.io"
    try:
        service = client.get(APIService, name)
    except ApiError as error:
        if error.status.code != 404:
            raise
        return False, f"{name} is not registered"
    conditions = (service.status and service.status.conditions) or []
    ready = any(one.type == "Available" and one.status == "True" for one in conditions)
    return ready, f"{name} is {'available' if ready else 'registered, but not available'}"


def _ingress_class(client: Client, name: str) -> tuple[bool, str]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.networking_v1 import IngressClass

    try:
        found = client.get(IngressClass, name)
    except ApiError as error:
        if error.status.code != 404:
            raise
        return False, f"{name} does not exist"
    controller = (found.spec and found.spec.controller) or ""
    if controller.startswith(_RUN_BY_AWS):
        return True, f"{name}: {controller}, run by AWS"
    if controller != _LOAD_BALANCER:
        return True, f"{name}: {controller}; whether its controller runs is not checked"
    running, what = _runs(client, LOAD_BALANCER_LABELS)
    return running, f"{name}: {what}"


def _access(client: Client, namespace: str) -> tuple[bool, str]:
    """Ask the API server whether this identity may do what a deployment does."""
    wanted = [("", *kind) for kind in CLUSTER_KINDS] + [(namespace, *kind) for kind in NAMESPACED_KINDS]
    denied: list[str] = []
    for where, group, resource in wanted:
        refused = [verb for verb in VERBS if not _may(client, where, verb, group, resource)]
        if refused:
            denied.append(f"{', '.join(refused)} {resource}")
    return not denied, f"not allowed: {'; '.join(denied)}" if denied else f"manages {len(wanted)} kinds in {namespace}"


def _may(client: Client, namespace: str, verb: str, group: str, resource: str) -> bool:
    from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
    from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

    asked = ResourceAttributes(group=group, namespace=namespace or None, resource=resource, verb=verb)
    answer: Any = client.create(SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=asked)))
    return bool(answer.status and answer.status.allowed)
