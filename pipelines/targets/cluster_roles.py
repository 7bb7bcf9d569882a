"""Kubernetes roles of the deploy and the preview role, as manifests. What is not listed here is denied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

READ = ("get", "list", "watch")
MANAGE = ("create", "delete", "get", "list", "patch", "watch")


@dataclass(frozen=True)
class Right:
    """Verbs on a resource of an environment's namespace.

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
    Right("", "serviceaccounts", MANAGE, READ, "the identities of workloads"),
    Right("", "services", MANAGE, READ, "the Services of endpoints"),
    Right("networking.k8s.io", "networkpolicies", MANAGE, READ, "what each workload may reach"),
    Right("networking.k8s.io", "ingresses", MANAGE, READ, "the load balancers of endpoints"),
    Right("batch", "cronjobs", MANAGE, READ, "ingestion and training"),
    Right("batch", "jobs", ("create", "delete", "get", "list", "watch"), READ, "`mlops ingest` and `mlops train`"),
    Right("autoscaling", "horizontalpodautoscalers", MANAGE, READ, "the number of an endpoint's pods"),
    Right("policy", "poddisruptionbudgets", MANAGE, READ, "endpoints while nodes are drained"),
    Right("argoproj.io", "rollouts", (*MANAGE, "update"), READ, "endpoints; a rollback changes them"),
    Right("argoproj.io", "rollouts/status", ("get", "patch", "update"), ("get",), "abort and full promotion"),
    Right("argoproj.io", "analysistemplates", MANAGE, READ, "the canary check"),
    Right("argoproj.io", "analysisruns", READ, READ, "why a rollout was aborted"),
    Right("apps", "replicasets", READ, READ, "which pods serve which bundle"),
    Right(
        "coordination.k8s.io", "leases", ("create", "delete", "get", "patch", "update"), ("get",), "one verb at a time"
    ),
    Right("", "pods", ("delete", *READ), READ, "jobs and endpoints; a pod without credentials is replaced"),
    Right("", "pods/log", ("get",), (), "the log of a job"),
    Right("", "pods/portforward", ("create", "get"), ("create", "get"), "asking an endpoint's pods"),
    Right("", "endpoints", READ, READ, "Pulumi waits for an Ingress and its Services"),
    Right("", "events", READ, READ, "Pulumi and jobs say what they wait for"),
)
"""Rights in the namespace of an environment."""

NAMESPACE_DEPLOY = ("delete", "get", "list", "patch", "watch")
NAMESPACE_PREVIEW = ("get", "list", "watch")
"""Verbs on the environment's own Namespace, by name. Nobody but the administrator creates one."""


def deploy_group(project: str, environment: str) -> str:
    """Return the Kubernetes group of an environment's deploy role; its access entry names it."""
    return f"{project}:deploy:{environment}"


def preview_group(project: str) -> str:
    """Return the Kubernetes group of the preview role."""
    return f"{project}:preview"


def role_manifests(project: str, environment: str, namespace: str) -> list[dict[str, Any]]:
    """Return the objects to apply in an environment's cluster, in order.

    The namespace comes first, because a Role cannot exist without one. The program then takes the namespace over.

    Args:
        project: the project's name.
        environment: the environment's name.
        namespace: its Kubernetes namespace.
    """
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}]
    for name, group, own in (
        (f"{project}-deploy", deploy_group(project, environment), NAMESPACE_DEPLOY),
        (f"{project}-preview", preview_group(project), NAMESPACE_PREVIEW),
    ):
        cluster_name = f"{name}-{environment}"
        rules = list(_rules(deploy=name.endswith("-deploy")))
        objects += [
            _role("ClusterRole", cluster_name, None, [_rule("", "namespaces", own, [namespace])]),
            _binding("ClusterRole", cluster_name, None, group),
            _role("Role", name, namespace, rules),
            _binding("Role", name, namespace, group),
        ]
    return objects


def _rules(*, deploy: bool) -> Iterator[dict[str, Any]]:
    for right in RIGHTS:
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
