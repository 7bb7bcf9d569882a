"""Check what the program relies on in a Kubernetes cluster; read-only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import IN_FLIGHT_METRIC
from pipelines.declarations.project import Project
from pipelines.declarations.spark_jobs import runs_spark_server
from pipelines.targets.checking import check, guarded
from pipelines.targets.cluster_roles import NAMESPACE_DEPLOY, NAMESPACES_DEPLOY, RIGHTS, SPARK_RIGHTS, Right
from pipelines.targets.target import Finding

if TYPE_CHECKING:
    from lightkube import Client
    from lightkube.resources.apps_v1 import DaemonSet

CLUSTER_KINDS = (("", "namespaces"),)
"""Kinds that the program manages in the cluster: API group, resource."""

NAMESPACED_KINDS = tuple((right.group, right.resource) for right in RIGHTS if "create" in right.deploy)
"""Kinds that a deployment creates in the namespace of an environment: API group, resource."""

ROLLOUTS_LABELS = {"app.kubernetes.io/name": "argo-rollouts", "app.kubernetes.io/component": "rollouts-controller"}
"""Labels of the Argo Rollouts controller, in its manifests and in its Helm chart."""

LOAD_BALANCER_LABELS = {"app.kubernetes.io/name": "aws-load-balancer-controller"}
"""Labels of the AWS Load Balancer Controller, in its Helm chart and manifests."""

VERIFY_TARGETS = "--aws-verify-target-group"
"""Argument of the Argo Rollouts controller: before it goes on, the load balancer has the new pods and their weights."""

POD_IDENTITY_AGENT = "eks-pod-identity-agent"
"""DaemonSet of the EKS add-on, in kube-system."""

_VPC_CNI = "aws-node"
_POLICY_FLAG = "--enable-network-policy=true"
_NO_DAEMON_SETS = "EKS Auto Mode runs it on the node"

_LOAD_BALANCER = "ingress.k8s.aws/alb"
"""Name by which an ingress class names the AWS Load Balancer Controller."""

_RUN_BY_AWS = "eks.amazonaws.com/"
"""Prefix of the controllers that EKS Auto Mode runs outside the cluster."""

_INSTALL_ROLLOUTS = "install Argo Rollouts with its controller: https://argo-rollouts.readthedocs.io"
_INSTALL_METRICS = "install the Kubernetes Metrics Server; autoscaling needs it"
_INSTALL_ADAPTER = (
    f"install an adapter that serves the pod metric {IN_FLIGHT_METRIC}, such as prometheus-adapter; a model.yaml sets "
    "serving.replicas.concurrency"
)
_VERIFY_TARGETS = f"add the argument {VERIFY_TARGETS} to the Argo Rollouts controller, with the IAM rights for it"
_INSTALL_AGENT = "install the EKS add-on eks-pod-identity-agent; without it pods have no credentials"
_ENFORCE_POLICIES = 'enable network policies in the add-on vpc-cni: enableNetworkPolicy: "true"'


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
        yield check("Argo Rollouts: flags", _VERIFY_TARGETS, lambda: _verifies_targets(client))
        yield check("metrics API", _INSTALL_METRICS, lambda: _serves_metrics(client, "metrics.k8s.io"))
        if _scales_by_concurrency(project):
            yield check("pod metrics", _INSTALL_ADAPTER, lambda: _serves_metrics(client, "custom.metrics.k8s.io"))
        yield check("Pod Identity agent", _INSTALL_AGENT, lambda: _has_agent(client))
        yield check("network policies", _ENFORCE_POLICIES, lambda: _enforces_policies(client))
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
        f"as an administrator: mlops cluster roles --env {environment} --apply (docs/bootstrap.md, step 6)",
        lambda: _access(client, config.namespace, RIGHTS),
    )
    if runs_spark_server(project, environment):
        yield check(
            f"access for Spark in {environment}",
            f"as an administrator: mlops cluster roles --env {environment} --apply (docs/bootstrap.md, step 6)",
            lambda: _access(client, config.spark_namespace, SPARK_RIGHTS),
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


def _verifies_targets(client: Client) -> tuple[bool, str]:
    """Look for the flag among the arguments of the Argo Rollouts controller."""
    from lightkube.resources.apps_v1 import Deployment

    for deployment in client.list(Deployment, namespace="*", labels={**ROLLOUTS_LABELS}):
        template = deployment.spec and deployment.spec.template and deployment.spec.template.spec
        words = [word for one in (template.containers if template else ()) for word in one.args or ()]
        if any(word in (VERIFY_TARGETS, f"{VERIFY_TARGETS}=true") for word in words):
            return True, VERIFY_TARGETS
        return False, f"expected {VERIFY_TARGETS}, found {' '.join(words) or 'no arguments'}"
    return False, "no such controller"


def _has_agent(client: Client) -> tuple[bool, str]:
    found = _daemon_set(client, POD_IDENTITY_AGENT)
    if found is None:
        auto = _is_auto_mode(client)
        return auto, _NO_DAEMON_SETS if auto else f"kube-system has no DaemonSet {POD_IDENTITY_AGENT}"
    ready, wanted = _ready(found)
    return 0 < wanted == ready, f"{ready} of {wanted} nodes"


def _enforces_policies(client: Client) -> tuple[bool, str]:
    """Look for a network policy agent. Without one, the API server accepts policies that nothing enforces."""
    found = _daemon_set(client, _VPC_CNI)
    if found is None:
        others = [name for name in ("cilium", "calico-node", "kube-router") if _daemon_set(client, name)]
        if others:
            return True, f"{others[0]} runs"
        auto = _is_auto_mode(client)
        return auto, _NO_DAEMON_SETS if auto else "no known network policy agent in kube-system"
    template = found.spec and found.spec.template and found.spec.template.spec
    words = [word for one in (template.containers if template else ()) for word in one.args or ()]
    enabled = _POLICY_FLAG in words
    return enabled, f"{_VPC_CNI}: {'enforced' if enabled else 'not enforced, which is the default'}"


def _daemon_set(client: Client, name: str) -> DaemonSet | None:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apps_v1 import DaemonSet

    try:
        return client.get(DaemonSet, name, namespace="kube-system")
    except ApiError as error:
        if error.status.code != 404:
            raise
        return None


def _ready(found: DaemonSet) -> tuple[int, int]:
    """Return the numbers of nodes on which a DaemonSet is ready, and on which it should be."""
    status = found.status
    return (status.numberReady, status.desiredNumberScheduled) if status else (0, 0)


def _is_auto_mode(client: Client) -> bool:
    """Return whether EKS Auto Mode manages nodes: its resource definition of node classes exists."""
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apiextensions_v1 import CustomResourceDefinition

    try:
        client.get(CustomResourceDefinition, "nodeclasses.eks.amazonaws.com")
    except ApiError as error:
        if error.status.code != 404:
            raise
        return False
    return True


def _serves_metrics(client: Client, group: str) -> tuple[bool, str]:
    from lightkube.core.exceptions import ApiError
    from lightkube.resources.apiregistration_v1 import APIService

    name = f"v1beta1.{group}"
    try:
        service = client.get(APIService, name)
    except ApiError as error:
        if error.status.code != 404:
            raise
        return False, f"{name} is not registered"
    conditions = (service.status and service.status.conditions) or []
    ready = any(one.type == "Available" and one.status == "True" for one in conditions)
    return ready, f"{name} is {'available' if ready else 'registered, but not available'}"


def _scales_by_concurrency(project: Project) -> bool:
    """Return True if a model is scaled by its requests in flight. A model that is not valid is reported elsewhere."""
    for name in project.model_names:
        try:
            if project.model(name).serving.replicas.concurrency is not None:
                return True
        except MlopsError:
            continue
    return False


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


def _access(client: Client, namespace: str, rights: Sequence[Right]) -> tuple[bool, str]:
    """Ask the API server whether this identity may do what a deployment does."""
    denied: list[str] = []
    for verb in NAMESPACE_DEPLOY:
        if not _may(client, "", verb, "", "namespaces", namespace):
            denied.append(f"{verb} the namespace {namespace}")
    denied += [f"{verb} namespaces" for verb in NAMESPACES_DEPLOY if not _may(client, "", verb, "", "namespaces")]
    for right in rights:
        refused = [verb for verb in right.deploy if not _may(client, namespace, verb, right.group, right.resource)]
        if refused:
            denied.append(f"{', '.join(refused)} {right.resource}")
    return not denied, f"not allowed: {'; '.join(denied)}" if denied else f"{len(rights)} rights in {namespace}"


def _may(client: Client, namespace: str, verb: str, group: str, resource: str, name: str = "") -> bool:
    from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
    from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

    kind, _, subresource = resource.partition("/")
    asked = ResourceAttributes(
        group=group,
        name=name or None,
        namespace=namespace or None,
        resource=kind,
        subresource=subresource or None,
        verb=verb,
    )
    answer: Any = client.create(SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=asked)))
    return bool(answer.status and answer.status.allowed)
