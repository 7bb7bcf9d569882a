"""Rules for pods."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.policies.pod_owners import LONG_RUNNING, PodOwner, pod_owners
from infra.policies.resource_graph import UNKNOWN, Graph, at, elements, holds
from infra.policies.rule import Finding, rule

NAMESPACE = "kubernetes:core/v1:Namespace"
_BY_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIAL", re.IGNORECASE)


@rule("k8s-namespace-restricted", "A namespace enforces a pinned version of the Pod Security Standard `restricted`")
def namespace_restricted(graph: Graph) -> Iterator[Finding]:
    for namespace in graph.of_type(NAMESPACE):
        prefix = "pod-security.kubernetes.io/enforce"
        if not holds(namespace.at("metadata", "labels", prefix), "restricted"):
            yield namespace, "does not enforce `restricted`"
        version = namespace.at("metadata", "labels", f"{prefix}-version")
        if version is not UNKNOWN and not re.fullmatch(r"v1\.\d+", str(version)):
            yield namespace, f"enforces version {version} of the standard"


@rule(
    "k8s-pod-restricted",
    "A pod is unprivileged: not root, no escalation, no capabilities, the default seccomp profile",
    "CKV_K8S_20",
    "CKV_K8S_23",
    "CKV_K8S_28",
    "CKV_K8S_31",
    "CKV_K8S_37",
)
def pod_restricted(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph):
        for container in owner.containers:
            name, own = at(container, "name"), at(container, "securityContext")
            non_root, user = (_setting(owner, own, field) for field in ("runAsNonRoot", "runAsUser"))
            if not holds(non_root, True) or user == 0:
                yield owner.resource, f"container {name} may run as root"
            if not holds(at(own, "allowPrivilegeEscalation"), False) or at(own, "privileged") is True:
                yield owner.resource, f"container {name} may escalate privileges"
            if at(own, "capabilities") is not UNKNOWN and "ALL" not in elements(at(own, "capabilities", "drop")):
                yield owner.resource, f"container {name} keeps capabilities"
            if elements(at(own, "capabilities", "add")):
                yield owner.resource, f"container {name} adds capabilities"
            if not holds(_setting(owner, own, "seccompProfile", "type"), "RuntimeDefault"):
                yield owner.resource, f"container {name} has no seccomp profile"
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            if owner.pod(flag) is True:
                yield owner.resource, f"shares the node's {flag.removeprefix('host').lower()}"


def _setting(owner: PodOwner, container: object, *path: str) -> object:
    """Return a setting of a container's security context, or else of its pod's."""
    own = at(container, *path)
    return own if own is not None else owner.pod("securityContext", *path)


@rule("k8s-read-only-root", "A container has a read-only root file system", "CKV_K8S_22")
def read_only_root(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph):
        for container in owner.containers:
            if not holds(at(container, "securityContext", "readOnlyRootFilesystem"), True):
                yield owner.resource, f"container {at(container, 'name')} can write to its root file system"
        for volume in elements(owner.pod("volumes")):
            if at(volume, "emptyDir") is not None and not at(volume, "emptyDir", "sizeLimit"):
                yield owner.resource, f"volume {at(volume, 'name')} has no size limit"


@rule(
    "k8s-resources-bounded",
    "A container has resource requests and limits",
    "CKV_K8S_10",
    "CKV_K8S_11",
    "CKV_K8S_12",
    "CKV_K8S_13",
)
def resources_bounded(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph):
        for container in owner.containers:
            for kind in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if not at(container, "resources", kind, what):
                        yield owner.resource, f"container {at(container, 'name')} has no {kind}.{what}"


@rule("k8s-probed", "A long-running container has liveness and readiness probes", "CKV_K8S_8", "CKV_K8S_9")
def probed(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph, *LONG_RUNNING):
        for container in elements(owner.pod("containers")):
            for probe in ("livenessProbe", "readinessProbe"):
                if not at(container, probe):
                    yield owner.resource, f"container {at(container, 'name')} has no {probe}"


@rule("k8s-image-by-digest", "An image is referenced by digest", "CKV_K8S_43")
def image_by_digest(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph):
        for container in owner.containers:
            image = at(container, "image")
            if image is not UNKNOWN and not _BY_DIGEST.fullmatch(str(image)):
                yield owner.resource, f"container {at(container, 'name')} runs {image}"


@rule("k8s-own-account", "A workload has its own service account, and no token for the cluster's API", "CKV_K8S_38")
def own_account(graph: Graph) -> Iterator[Finding]:
    users: dict[tuple[str, str], str] = {}
    for owner in pod_owners(graph):
        account = owner.pod("serviceAccountName")
        if account in (None, "default"):
            yield owner.resource, "runs as the default service account"
        if not holds(owner.pod("automountServiceAccountToken"), False):
            yield owner.resource, "mounts a token for the cluster's API"
        key = (str(owner.resource.at("metadata", "namespace")), str(account))
        if account is not UNKNOWN and users.setdefault(key, owner.resource.urn) != owner.resource.urn:
            yield owner.resource, f"shares the service account {account}"
    for service_account in graph.of_type("kubernetes:core/v1:ServiceAccount"):
        if not holds(service_account.at("automountServiceAccountToken"), False):
            yield service_account, "mounts tokens for the cluster's API"


@rule("k8s-survives-a-drain", "A long-running workload survives the drain of a node and the loss of a zone")
def survives_a_drain(graph: Graph) -> Iterator[Finding]:
    budgets = graph.of_type("kubernetes:policy/v1:PodDisruptionBudget")
    for owner in pod_owners(graph, *LONG_RUNNING):
        own = [budget for budget in budgets if owner.selected_by(budget.at("spec", "selector"))]
        if not own:
            yield owner.resource, "has no disruption budget"
        replicas = owner.resource.at("spec", "replicas")
        replicas = 1 if replicas is None else replicas
        if isinstance(replicas, int | float) and replicas < 2:
            yield owner.resource, f"has {int(replicas)} replica"
        for budget in own:
            least, most = budget.at("spec", "minAvailable"), budget.at("spec", "maxUnavailable")
            if most in (0, "0%") or least == "100%":
                yield budget, "allows no disruption"
            elif isinstance(least, int | float) and isinstance(replicas, int | float) and least >= replicas:
                yield budget, f"requires {int(least)} of {int(replicas)} pods"
        topologies = {at(item, "topologyKey") for item in elements(owner.pod("topologySpreadConstraints"))}
        if "topology.kubernetes.io/zone" not in topologies and UNKNOWN not in topologies:
            yield owner.resource, "is not spread over zones"


@rule("k8s-no-literal-secret", "No secret is written into a pod's environment variables", "CKV_K8S_35")
def no_literal_secret(graph: Graph) -> Iterator[Finding]:
    for owner in pod_owners(graph):
        for container in owner.containers:
            for variable in elements(at(container, "env")):
                name = at(variable, "name")
                if at(variable, "value") and isinstance(name, str) and _SECRET_NAME.search(name):
                    yield owner.resource, f"contains a literal value for {name}"
