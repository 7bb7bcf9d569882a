"""The kinds of object that the small cluster keeps, and the paths of the Kubernetes API that they stand for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        group: the API group, "" for the core group.
        version: the version of the group, `v1`.
        name: the kind as manifests write it, `CronJob`.
        plural: the kind as paths write it, `cronjobs`.
        namespaced: False for what belongs to the whole cluster.
    """

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests write it: `v1`, `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """The path of the group and version: `/api/v1`, `/apis/batch/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of one object, or of the collection when `name` is empty."""
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.base}{scope}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
SERVICE = Kind("", "v1", "Service", "services")
POD = Kind("", "v1", "Pod", "pods")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
EVENT = Kind("", "v1", "Event", "events")
JOB = Kind("batch", "v1", "Job", "jobs")
CRON_JOB = Kind("batch", "v1", "CronJob", "cronjobs")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps", "v1", "ReplicaSet", "replicasets")
INGRESS = Kind("networking.k8s.io", "v1", "Ingress", "ingresses")
ROLLOUT = Kind("argoproj.io", "v1alpha1", "Rollout", "rollouts")
ANALYSIS_TEMPLATE = Kind("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates")
ANALYSIS_RUN = Kind("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns")

RBAC = "rbac.authorization.k8s.io"
KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    SERVICE_ACCOUNT,
    SERVICE,
    POD,
    CONFIG_MAP,
    SECRET,
    EVENT,
    Kind("", "v1", "ResourceQuota", "resourcequotas"),
    Kind("", "v1", "LimitRange", "limitranges"),
    JOB,
    CRON_JOB,
    DEPLOYMENT,
    REPLICA_SET,
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    INGRESS,
    Kind(RBAC, "v1", "Role", "roles"),
    Kind(RBAC, "v1", "RoleBinding", "rolebindings"),
    Kind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    Kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    ROLLOUT,
    ANALYSIS_TEMPLATE,
    ANALYSIS_RUN,
)

_BY_PATH = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
_BY_MANIFEST = {(kind.api_version, kind.name): kind for kind in KINDS}


def kind_at(group: str, version: str, plural: str) -> Kind | None:
    """The kind that a path names, or None when the cluster does not keep it."""
    return _BY_PATH.get((group, version, plural))


def kind_of(api_version: str, name: str) -> Kind | None:
    """The kind that a manifest names (`batch/v1`, `Job`), or None when the cluster does not keep it."""
    return _BY_MANIFEST.get((api_version, name))
