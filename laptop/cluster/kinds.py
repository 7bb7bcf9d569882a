"""Kinds of object that the cluster serves, and their paths in the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass

_NO_STATUS = {
    "AnalysisRun",
    "AnalysisTemplate",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Endpoints",
    "Event",
    "Lease",
    "LimitRange",
    "NetworkPolicy",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
}


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        group: API group, "" for the core group.
        version: version of the group, such as `v1`.
        name: kind in manifests, such as `CronJob`.
        plural: resource name in paths, such as `cronjobs`.
        namespaced: False for cluster-wide kinds.
        short_names: abbreviations that kubectl accepts.
        in_all: True if `kubectl get all` lists it.
        scales: True if it has a `scale` subresource.
    """

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    in_all: bool = False
    scales: bool = False

    @property
    def has_status(self) -> bool:
        """True if it has a `status` subresource."""
        return self.name not in _NO_STATUS

    @property
    def api_version(self) -> str:
        """`apiVersion` of manifests: `v1`, `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """Path of the group and version: `/api/v1`, `/apis/batch/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """Return the path of one object, or of the collection if `name` is empty."""
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.base}{scope}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False, short_names=("ns",))
NODE = Kind("", "v1", "Node", "nodes", namespaced=False, short_names=("no",))
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",))
SERVICE = Kind("", "v1", "Service", "services", short_names=("svc",), in_all=True)
POD = Kind("", "v1", "Pod", "pods", short_names=("po",), in_all=True)
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
SECRET = Kind("", "v1", "Secret", "secrets")
EVENT = Kind("", "v1", "Event", "events", short_names=("ev",))
ENDPOINTS = Kind("", "v1", "Endpoints", "endpoints", short_names=("ep",))
VOLUME_CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",))
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas", short_names=("quota",))
JOB = Kind("batch", "v1", "Job", "jobs", in_all=True)
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs", short_names=("cj",), in_all=True)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", short_names=("deploy",), in_all=True, scales=True)
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), in_all=True, scales=True)
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", short_names=("netpol",))
INGRESS = Kind("networking.k8s.io", "v1", "Ingress", "ingresses", short_names=("ing",))
ROLLOUT = Kind("argoproj.io", "v1alpha1", "Rollout", "rollouts", short_names=("ro",), in_all=True, scales=True)
ANALYSIS_TEMPLATE = Kind("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates", short_names=("at",))
ANALYSIS_RUN = Kind("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns", short_names=("ar",))

RBAC = "rbac.authorization.k8s.io"
ROLE = Kind(RBAC, "v1", "Role", "roles")
ROLE_BINDING = Kind(RBAC, "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)

KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    SERVICE_ACCOUNT,
    SERVICE,
    POD,
    CONFIG_MAP,
    SECRET,
    EVENT,
    ENDPOINTS,
    VOLUME_CLAIM,
    RESOURCE_QUOTA,
    Kind("", "v1", "LimitRange", "limitranges", short_names=("limits",)),
    JOB,
    CRON_JOB,
    DEPLOYMENT,
    REPLICA_SET,
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short_names=("pdb",)),
    Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", short_names=("hpa",)),
    NETWORK_POLICY,
    INGRESS,
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    ROLE,
    ROLE_BINDING,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    ROLLOUT,
    ANALYSIS_TEMPLATE,
    ANALYSIS_RUN,
)

_BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_MANIFEST = {(kind.api_version, kind.name): kind for kind in KINDS}


def kind_at(group: str, version: str, plural: str) -> Kind | None:
    """Return the kind at a path, or None if the cluster does not serve it."""
    return _BY_PATH.get((group, version, plural))


def is_served(group: str, version: str) -> bool:
    """Return whether the cluster serves any kind of a group and version."""
    return any((kind.group, kind.version) == (group, version) for kind in KINDS)


def kind_of(api_version: str, name: str) -> Kind | None:
    """Return the kind of a manifest (`batch/v1`, `Job`), or None if the cluster does not serve it."""
    return _BY_MANIFEST.get((api_version, name))
