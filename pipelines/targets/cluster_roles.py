"""Kubernetes roles of the deploy and the preview role, as manifests. What is not listed here is denied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.spark_jobs import START_WORKERS

MANAGE = ("create", "delete", "get", "list", "patch", "watch")
"""Verbs with which Pulumi manages objects. Before it deletes one, it lists and watches the kind."""

LOOK = ("get",)
"""Verb with which Pulumi compares an object with its state."""


@dataclass(frozen=True)
class Right:
    """Verbs on a resource of a namespace.

    `make conformance` shows that each verb of `RIGHTS` is used, and that no other is needed.

    Attributes:
        group: API group; "" for the core group.
        resource: plural name, with a subresource after a slash.
        deploy: verbs of the deploy role.
        preview: verbs of the preview role.
        why: what needs it.
    """

    group: str
    resource: str
    deploy: tuple[str, ...]
    preview: tuple[str, ...]
    why: str


RIGHTS = (
    Right("", "serviceaccounts", MANAGE, LOOK, "the identities of workloads"),
    Right("", "services", MANAGE, ("get", "list"), "the Services of endpoints; Pulumi reads those of an Ingress"),
    Right("networking.k8s.io", "networkpolicies", MANAGE, LOOK, "what each workload may reach"),
    Right("networking.k8s.io", "ingresses", MANAGE, LOOK, "the load balancers of endpoints"),
    Right("batch", "cronjobs", MANAGE, LOOK, "ingestion, training, monitors and batch predictions"),
    Right("batch", "jobs", ("create", "get", "list"), (), "`mlops ingest`, `mlops train` and `mlops predict`"),
    Right("autoscaling", "horizontalpodautoscalers", MANAGE, LOOK, "the number of an endpoint's pods"),
    Right("policy", "poddisruptionbudgets", MANAGE, LOOK, "endpoints while nodes are drained"),
    Right("argoproj.io", "rollouts", MANAGE, LOOK, "endpoints; a rollback changes them"),
    Right("argoproj.io", "rollouts/status", ("patch",), (), "abort and full promotion"),
    Right("argoproj.io", "analysistemplates", MANAGE, LOOK, "the canary check"),
    Right("coordination.k8s.io", "leases", ("create", "get", "update"), (), "one verb at a time"),
    Right("", "pods", ("delete", "list"), ("list",), "jobs and endpoints; a pod without credentials is replaced"),
    Right("", "pods/log", ("get",), (), "the log of a job"),
    # Not for the preview role, which any branch can use: it could send requests to a canary, and so decide about it.
    # The API server asks for `get` until Kubernetes 1.34, and for `create` as well from 1.35 on.
    Right("", "pods/portforward", ("create", "get"), (), "asking an endpoint's pods"),
    Right("", "endpoints", ("list", "watch"), ("list",), "Pulumi waits for an Ingress and its Services"),
    Right("", "events", ("list", "watch"), (), "Pulumi says what it waits for"),
)
"""Rights in the namespace of an environment."""

SPARK_RIGHTS = (
    Right("", "serviceaccounts", MANAGE, LOOK, "the identities of the server and its workers"),
    Right("", "services", MANAGE, LOOK, "the Service of the server"),
    Right("", "resourcequotas", MANAGE, LOOK, "what all workers may use together"),
    Right("networking.k8s.io", "networkpolicies", MANAGE, LOOK, "who reaches the server and its workers"),
    Right("apps", "deployments", ("create", "delete", "get", "patch"), LOOK, "the server, which Pulumi does not await"),
    # `bind`: a preview binds a Role that does not exist yet, and the API server asks for the Role without it.
    Right("rbac.authorization.k8s.io", "roles", (*MANAGE, "bind"), LOOK, "the server's right to start workers"),
    Right("rbac.authorization.k8s.io", "rolebindings", MANAGE, LOOK, "the server's right to start workers"),
    # Kubernetes lets nobody give a right that they do not have.
    Right("", "pods", (*START_WORKERS, "list"), (), "the right that the server gets; the log of the server"),
    Right("", "pods/log", ("get",), (), "the log of the server and its workers"),
)
"""Rights in the namespace of an environment's Spark server."""

NAMESPACE_DEPLOY = ("delete", "get", "patch")
NAMESPACE_PREVIEW = ("get",)
"""Verbs on the environment's own Namespace, by name. Nobody but the administrator creates one."""

NAMESPACES_DEPLOY = ("list", "watch")
"""Verbs of the deploy role on all Namespaces. Without them, Pulumi waits without an end for the one that it deletes."""


def deploy_group(project: str, environment: str) -> str:
    """Return the Kubernetes group of an environment's deploy role; its access entry names it."""
    return f"{project}:deploy:{environment}"


def preview_group(project: str) -> str:
    """Return the Kubernetes group of the preview role."""
    return f"{project}:preview"


def role_manifests(project: str, environment: str, namespace: str, spark: str | None = None) -> list[dict[str, Any]]:
    """Return the objects to apply in an environment's cluster, in order.

    A namespace comes first, because a Role cannot exist without one. The program then takes the namespaces over.

    Args:
        project: the project's name.
        environment: the environment's name.
        namespace: its Kubernetes namespace.
        spark: namespace of its Spark server; None if it has none.
    """
    places = {namespace: RIGHTS} | ({spark: SPARK_RIGHTS} if spark is not None else {})
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}} for place in places
    ]
    for name, group, own, every in (
        (f"{project}-deploy", deploy_group(project, environment), NAMESPACE_DEPLOY, NAMESPACES_DEPLOY),
        (f"{project}-preview", preview_group(project), NAMESPACE_PREVIEW, ()),
    ):
        cluster_name = f"{name}-{environment}"
        on_namespaces = [_rule("", "namespaces", own, list(places))]
        if every:
            on_namespaces.append(_rule("", "namespaces", every))
        objects += [
            _role("ClusterRole", cluster_name, None, on_namespaces),
            _binding("ClusterRole", cluster_name, None, group),
        ]
        for place, rights in places.items():
            rules = list(_rules(rights, deploy=name.endswith("-deploy")))
            objects += [_role("Role", name, place, rules), _binding("Role", name, place, group)]
    return objects


def _rules(rights: Iterable[Right], *, deploy: bool) -> Iterator[dict[str, Any]]:
    for right in rights:
        verbs = right.deploy if deploy else right.preview
        if verbs:
            yield _rule(right.group, right.resource, verbs)


def _rule(group: str, resource: str, verbs: tuple[str, ...], names: list[str] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": [resource], "verbs": sorted(verbs)}
    return {**rule, "resourceNames": names} if names else rule


def _role(kind: str, name: str, namespace: str | None, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": _metadata(name, namespace),
        "rules": rules,
    }


def _binding(kind: str, name: str, namespace: str | None, group: str) -> dict[str, Any]:
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": f"{kind}Binding",
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": api, "kind": kind, "name": name},
        "subjects": [{"apiGroup": api, "kind": "Group", "name": group}],
    }


def _metadata(name: str, namespace: str | None) -> dict[str, str]:
    return {"name": name, **({"namespace": namespace} if namespace else {})}


def access_commands(project: str, environment: str, cluster: str, region: str) -> list[str]:
    """Return the AWS commands that give the bootstrap's roles these groups in an EKS cluster."""
    account = "<account>"
    roles = (
        (f"{project}-deploy-{environment}", deploy_group(project, environment)),
        (f"{project}-preview", preview_group(project)),
    )
    return [
        f"aws eks create-access-entry --cluster-name {cluster} --region {region} --kubernetes-groups {group} "
        f"--principal-arn arn:aws:iam::{account}:role/bootstrap/{role}"
        for role, group in roles
    ]
