"""Reviews of access: `kubectl auth can-i` and `kubectl auth whoami`.

The operator of the kubeconfig may do everything. A pod may do what RBAC allows its service account.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from laptop.cluster.field_ownership import Manager, after_update, write_managers
from laptop.cluster.kinds import Kind
from laptop.cluster.objects import now
from laptop.cluster.refusals import INVALID, FieldProblem, StatusError, bad_request, invalid, nowhere
from laptop.cluster.service_accounts import Access, PodAccount, ServiceAccountTokens
from laptop.cluster.typed_schemas import ANY

OPERATOR = "laptop"
"""Name of the operator."""

_AUTHORIZATION, _AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"

RESOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    _AUTHENTICATION: (("selfsubjectreviews", "SelfSubjectReview"),),
    _AUTHORIZATION: (
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ),
}
"""API group → resources that answer a question and are not stored, with their kinds."""

_OPEN_PATHS = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz"]
_OPEN = {"nonResourceURLs": [*_OPEN_PATHS, "/version", "/version/"], "verbs": ["get"]}
_OWN = [
    {"verbs": ["create"], "apiGroups": [group], "resources": [name for name, _ in resources]}
    for group, resources in sorted(RESOURCES.items(), reverse=True)
]


@dataclass(frozen=True)
class User:
    """The caller: the operator, or the account of a pod."""

    account: PodAccount | None

    @property
    def name(self) -> str:
        """User name as Kubernetes shows it."""
        return OPERATOR if self.account is None else str(self.account)

    @property
    def groups(self) -> list[str]:
        """Groups of the user."""
        if self.account is None:
            return ["system:masters", "system:authenticated"]
        own = f"system:serviceaccounts:{self.account.namespace}"
        return ["system:serviceaccounts", own, "system:authenticated"]


def review(
    user: User, accounts: ServiceAccountTokens, group: str, plural: str, body: Mapping[str, Any], manager: str
) -> dict[str, Any]:
    """Return the answer to a review.

    Args:
        user: who asks.
        accounts: permissions of pods.
        group: API group of the review.
        plural: resource of the review.
        body: the review.
        manager: field manager of the request.

    Raises:
        StatusError: 404, there is no such review; 422, it asks nothing.
    """
    kind = dict(RESOURCES.get(group, ())).get(plural)
    if kind is None:
        raise nowhere()
    if body.get("kind", kind) != kind:
        raise bad_request(f'{body["kind"]} in version "v1" cannot be handled as a {kind}')
    answer: dict[str, Any] = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}, "spec": body.get("spec") or {}}
    if kind == "SelfSubjectReview":
        return _whoami(user)
    if kind == "SelfSubjectRulesReview":
        namespace = str(answer["spec"].get("namespace") or "")
        if not namespace:
            raise bad_request("no namespace on request")
        return {**answer, "spec": {}, "status": _rules(user, accounts, namespace)}
    owner = Manager(manager, "Update", answer["apiVersion"])
    owners = after_update(ANY, {}, owner, {"spec": {}}, {"spec": answer["spec"]}, {}, now())
    answer["metadata"] = {"managedFields": write_managers(owners)} if owners else {}
    return {**answer, "status": _decision(user, accounts, answer["spec"])}


def _whoami(user: User) -> dict[str, Any]:
    info = {"username": user.name, "groups": user.groups}
    metadata = {"creationTimestamp": now()}
    return {
        "kind": "SelfSubjectReview",
        "apiVersion": f"{_AUTHENTICATION}/v1",
        "metadata": metadata,
        "status": {"userInfo": info},
    }


def _decision(user: User, accounts: ServiceAccountTokens, spec: Mapping[str, Any]) -> dict[str, Any]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        says = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        problem = FieldProblem(INVALID, "spec.resourceAttributes", None, says)
        error = invalid(Kind(_AUTHORIZATION, "v1", "", ""), "", [problem])
        raise StatusError(error.code, error.reason, f"SelfSubjectAccessReview.{_AUTHORIZATION} {says}", error.details)
    if user.account is None:
        return {"allowed": True}
    if path is not None:
        asked = str(path.get("path", ""))
        is_open = any(fnmatch.fnmatchcase(asked, pattern) for pattern in _OPEN["nonResourceURLs"])
        return {"allowed": is_open and path.get("verb") == "get"}
    assert resource is not None
    group = str(resource.get("group") or "")
    if (group in RESOURCES) and resource.get("verb") == "create":
        return {"allowed": True}
    name = str(resource.get("resource") or "")
    access = Access(
        str(resource.get("verb") or ""),
        Kind(group, "v1", name, name),
        str(resource.get("namespace") or ""),
        str(resource.get("name") or ""),
        str(resource.get("subresource") or ""),
    )
    return {"allowed": accounts.is_allowed(user.account, access)}


def _rules(user: User, accounts: ServiceAccountTokens, namespace: str) -> dict[str, Any]:
    resources: list[Any] = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, *_OWN]
    others: list[Any] = [{"verbs": ["*"], "nonResourceURLs": ["*"]}, _OPEN]
    if user.account is not None:
        resources, others = [*accounts.rules_of(user.account, namespace), *_OWN], [_OPEN]
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}
