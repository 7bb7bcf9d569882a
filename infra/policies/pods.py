"""Rules about pods."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra.policies.graph import UNKNOWN, Graph, at, elements, holds
from infra.policies.rule import Finding, rule
from infra.policies.workloads import LASTING, workloads

NAMESPACE = "kubernetes:core/v1:Namespace"
_BY_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIAL", re.IGNORECASE)


@rule("k8s-namespace-restricted", "A namespace enforces the Pod Security Standard `restricted`, in a named version")
def namespace_restricted(graph: Graph) -> Iterator[Finding]:
    for namespace in graph.of_type(NAMESPACE):
        prefix = "pod-security.kubernetes.io/enforce"
        if not holds(namespace.at("metadata", "labels", prefix), "restricted"):
            yield namespace, "does not enforce `restricted`"
        version = namespace.at("metadata", "labels", f"{prefix}-version")
        if version is not UNKNOWN and not re.fullmatch(r"v1\.\d+", str(version)):
            yield namespace, f"follows version {version} of the standard"


@rule(
    "k8s-pod-restricted",
    "A pod is nobody special: not root, no escalation, no capabilities, the runtime's seccomp profile",
    "CKV_K8S_20",
    "CKV_K8S_23",
    "CKV_K8S_28",
    "CKV_K8S_31",
    "CKV_K8S_37",
)
def pod_restricted(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph):
        for container in workload.containers:
            name, own = at(container, "name"), at(container, "securityContext")

            def said(*path: str, own: object = own, workload: object = workload) -> object:
                on_container = at(own, *path)
                return on_container if on_container is not None else workload.pod("securityContext", *path)  # type: ignore[attr-defined]

            if not holds(said("runAsNonRoot"), True) or said("runAsUser") == 0:
                yield workload.resource, f"container {name} may run as root"
            if not holds(at(own, "allowPrivilegeEscalation"), False) or at(own, "privileged") is True:
                yield workload.resource, f"container {name} may gain privileges"
            if at(own, "capabilities") is not UNKNOWN and "ALL" not in elements(at(own, "capabilities", "drop")):
                yield workload.resource, f"container {name} keeps capabilities"
            if elements(at(own, "capabilities", "add")):
                yield workload.resource, f"container {name} adds capabilities"
            if not holds(said("seccompProfile", "type"), "RuntimeDefault"):
                yield workload.resource, f"container {name} has no seccomp profile"
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            if workload.pod(flag) is True:
                yield workload.resource, f"shares the node's {flag.removeprefix('host').lower()}"


@rule("k8s-read-only-root", "A container cannot write to its image", "CKV_K8S_22")
def read_only_root(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph):
        for container in workload.containers:
            if not holds(at(container, "securityContext", "readOnlyRootFilesystem"), True):
                yield workload.resource, f"container {at(container, 'name')} can write to its image"
        for volume in elements(workload.pod("volumes")):
            if at(volume, "emptyDir") is not None and not at(volume, "emptyDir", "sizeLimit"):
                yield workload.resource, f"volume {at(volume, 'name')} has no size limit"


@rule(
    "k8s-resources-bounded",
    "A container says what it needs and what it may take",
    "CKV_K8S_10",
    "CKV_K8S_11",
    "CKV_K8S_12",
    "CKV_K8S_13",
)
def resources_bounded(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph):
        for container in workload.containers:
            for kind in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if not at(container, "resources", kind, what):
                        yield workload.resource, f"container {at(container, 'name')} has no {kind} of {what}"


@rule("k8s-probed", "What lasts says whether it lives and whether it is ready", "CKV_K8S_8", "CKV_K8S_9")
def probed(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph, *LASTING):
        for container in elements(workload.pod("containers")):
            for probe in ("livenessProbe", "readinessProbe"):
                if not at(container, probe):
                    yield workload.resource, f"container {at(container, 'name')} has no {probe}"


@rule("k8s-image-by-digest", "A container's image is named by its digest", "CKV_K8S_43")
def image_by_digest(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph):
        for container in workload.containers:
            image = at(container, "image")
            if image is not UNKNOWN and not _BY_DIGEST.fullmatch(str(image)):
                yield workload.resource, f"container {at(container, 'name')} runs {image}"


@rule("k8s-own-account", "A workload has a service account of its own, and no token for the cluster", "CKV_K8S_38")
def own_account(graph: Graph) -> Iterator[Finding]:
    users: dict[tuple[str, str], str] = {}
    for workload in workloads(graph):
        account = workload.pod("serviceAccountName")
        if account in (None, "default"):
            yield workload.resource, "runs as the default service account"
        if not holds(workload.pod("automountServiceAccountToken"), False):
            yield workload.resource, "has a token for the cluster"
        key = (str(workload.resource.at("metadata", "namespace")), str(account))
        if account is not UNKNOWN and users.setdefault(key, workload.resource.urn) != workload.resource.urn:
            yield workload.resource, f"shares the service account {account}"
    for service_account in graph.of_type("kubernetes:core/v1:ServiceAccount"):
        if not holds(service_account.at("automountServiceAccountToken"), False):
            yield service_account, "hands out tokens for the cluster"


@rule("k8s-survives-a-drain", "What lasts is spread over zones, and its disruption budget leaves a drain possible")
def survives_a_drain(graph: Graph) -> Iterator[Finding]:
    budgets = graph.of_type("kubernetes:policy/v1:PodDisruptionBudget")
    for workload in workloads(graph, *LASTING):
        own = [budget for budget in budgets if workload.selected_by(budget.at("spec", "selector"))]
        if not own:
            yield workload.resource, "has no disruption budget"
        replicas = workload.resource.at("spec", "replicas")
        replicas = 1 if replicas is None else replicas
        if isinstance(replicas, int | float) and replicas < 2:
            yield workload.resource, f"has {int(replicas)} replica"
        for budget in own:
            least, most = budget.at("spec", "minAvailable"), budget.at("spec", "maxUnavailable")
            if most in (0, "0%") or least == "100%":
                yield budget, "lets no pod be moved"
            elif isinstance(least, int | float) and isinstance(replicas, int | float) and least >= replicas:
                yield budget, f"asks for {int(least)} pods of {int(replicas)}"
        topologies = {at(item, "topologyKey") for item in elements(workload.pod("topologySpreadConstraints"))}
        if "topology.kubernetes.io/zone" not in topologies and UNKNOWN not in topologies:
            yield workload.resource, "may run in one zone"


@rule("k8s-no-literal-secret", "No secret stands in a pod's environment", "CKV_K8S_35")
def no_literal_secret(graph: Graph) -> Iterator[Finding]:
    for workload in workloads(graph):
        for container in workload.containers:
            for variable in elements(at(container, "env")):
                name = at(variable, "name")
                if at(variable, "value") and isinstance(name, str) and _SECRET_NAME.search(name):
                    yield workload.resource, f"{name} stands in the manifest"
