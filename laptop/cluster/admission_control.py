"""Admission of objects: schema, names, Pod Security, references, immutable fields."""

from __future__ import annotations

import secrets
from typing import Any

from laptop.cluster.immutable import changed_immutables
from laptop.cluster.kinds import NAMESPACE, POD, SERVICE_ACCOUNT, Kind
from laptop.cluster.manifest_schemas import problems
from laptop.cluster.objects import Object, ObjectStore
from laptop.cluster.pod_security import ENFORCE, ENFORCE_VERSION, violations
from laptop.cluster.refusals import StatusError, bad_request, forbidden, invalid
from laptop.cluster.supported import unsupported


def admit(store: ObjectStore, kind: Kind, namespace: str, obj: Object, old: Object | None = None) -> None:
    """Check that an object may be stored.

    Args:
        store: objects of the cluster.
        kind: kind of the object.
        namespace: namespace of the object.
        obj: whole object.
        old: object that it replaces.

    Raises:
        StatusError: it is not admitted.
    """
    name = str((obj.get("metadata") or {}).get("name", ""))
    found = problems(kind, {key: value for key, value in obj.items() if key != "status"})
    if any(": unknown field " in problem for problem in found):
        raise bad_request(f'{kind.name} "{name}" is not accepted: strict decoding error: ' + "; ".join(found))
    if not found:
        found = [f"{what} (a limit of the laptop)" for what in unsupported(kind, obj)]
    if not found and old is not None:
        found = [f"{path}: the field is immutable" for path in changed_immutables(kind, old, obj)]
    if found:
        raise invalid(kind.plural, name, found)
    if kind is POD and old is None:
        _check_pod_security(store, namespace, name, obj["spec"])
        _check_service_account(store, namespace, name, obj["spec"])


def create_pod(store: ObjectStore, namespace: str, pod: Object) -> Object:
    """Admit and create a pod for a controller.

    Raises:
        StatusError: it is not admitted.
    """
    metadata = {"name": f"{pod['metadata']['generateName']}{secrets.token_hex(3)[:5]}", **pod["metadata"]}
    pod = {**pod, "metadata": metadata}
    admit(store, POD, namespace, pod)
    return store.create(POD, namespace, pod)


def _check_pod_security(store: ObjectStore, namespace: str, name: str, pod: dict[str, Any]) -> None:
    """Refuse a pod that violates the standard of its namespace. Workloads are stored; their pods are refused."""
    home = store.find(NAMESPACE, "", namespace)
    labels = (home["metadata"].get("labels") or {}) if home else {}
    if labels.get(ENFORCE) != "restricted":
        return
    if broken := violations(pod):
        level = f"restricted:{labels.get(ENFORCE_VERSION, 'latest')}"
        raise forbidden(POD.plural, name, f'violates PodSecurity "{level}": ' + ", ".join(broken))


def _check_service_account(store: ObjectStore, namespace: str, name: str, pod: dict[str, Any]) -> None:
    account = pod.get("serviceAccountName") or "default"
    if account != "default" and store.find(SERVICE_ACCOUNT, namespace, account) is None:
        raise StatusError(
            403,
            "Forbidden",
            f'pods "{name}" is forbidden: error looking up service account {namespace}/{account}: '
            f'serviceaccount "{account}" not found',
        )
